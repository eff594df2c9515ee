"""Nothing in a file of perturbations runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import attacks._perturbation_file as forms
from attacks._perturbation_file import read
from benchmark import ImageSet
from support.perturbation_files import (  # noqa: F401  two are fixtures
    Array,
    added,
    as_npy,
    as_npz,
    poisoned,
    refused,
    save,
    some_changes,
    some_images,
)

# Nothing in a file runs


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def hostile(path: Path, marker: Path, form: str) -> None:
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(Runs(marker), protocol=int(form[-1])))
    elif form == "instance":
        path.write_bytes(f"(S'touch {marker}'\niposix\nsystem\n.".encode())
    elif form == "inside":  # after a good array
        path.write_bytes(pickle.dumps({"perturbation": np.zeros(3), "more": Runs(marker)}))
    elif form == "npy":
        as_npy(path, np.array([Runs(marker)], dtype=object))
    elif form == "npz":
        as_npz(path, np.array([Runs(marker)], dtype=object))
    else:
        torch.save(
            {"perturbation": torch.zeros(3), "more": Runs(marker)},
            path,
            _use_new_zipfile_serialization=form == "pt",
        )


@pytest.mark.parametrize(
    "form",
    [
        "pickle 0",
        "pickle 2",
        "pickle 4",
        "pickle 5",
        "instance",
        "inside",
        "npy",
        "npz",
        "pt",
        "old pt",
    ],
)
def test_a_file_with_code_is_refused_and_runs_nothing(
    form: str, data: ImageSet, tmp_path: Path
) -> None:
    path, marker = tmp_path / "file", tmp_path / "ran"
    hostile(path, marker, form)
    reason = (
        "bject"
        if form.startswith("np")
        else r"it asks for posix\.system, and only numbers are taken from strangers' files"
    )
    refused(
        data, str(path), f"cannot read .*{reason}.*; expected numbers in .npy, .npz, .pt or .pkl"
    )
    assert not marker.exists()
    if not form.startswith("np") and form != "old pt":
        with path.open("rb") as handle:
            torch.load(handle, weights_only=False) if form == "pt" else pickle.load(handle)  # noqa: S301 - the file is a real threat
        assert marker.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", r"it asks for builtins\.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x07f2py.os\x93.", r"it asks for numpy\.f2py\.os"),
        (
            b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
            r"it asks for numpy\.ndarray\.__init__",
        ),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "it holds a partial, expected an array"),
        (b"ccopyreg\n_reconstructor\n.", r"it asks for copyreg\._reconstructor"),
        (b"c_codecs\nencode\n(S'abc'\nS'zlib'\ntR.", "encodes bytes as zlib, expected latin1"),
        (b"\x80\x02\x82\x07.", "unregistered extension code 7"),
        (b"Pname\n.", "persistent"),
        (b"\x80\x04]\x94.", "it holds a list, expected an array or a dictionary of arrays"),
        (
            pickle.dumps(np.array([print], dtype=object), protocol=2),
            "its pickled array holds Python objects, not integers or floats",
        ),
        (
            pickle.dumps(np.array([{}], dtype=object), protocol=5),
            "its pickled array holds Python objects",
        ),
        (pickle.dumps(np.zeros(2, "i4,f4")), 'its pickled array holds "V8"'),
        (pickle.dumps(np.zeros(9))[:-20], "cannot read"),
        (pickle.dumps(torch.zeros(3)), r"it asks for torch\._utils\._rebuild_tensor_v2"),
        (b"cnumpy\nndarray\n(tR.", "it holds a NoneType"),
        (b"", "cannot read .*: Ran out of input"),
        (b"words", "cannot read .*: invalid load key"),
        (b"PK\x03\x04 and no more", "cannot read .*: File is not a zip file"),
        (b"\x93NUMPY and no more", "cannot read"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(body: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(body)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "file.pkl")


def test_a_forged_dtype_cannot_make_objects_of_bytes(tmp_path: Path) -> None:
    """NumPy's own ``dtype.__setstate__`` takes flags from the pickle; here only byte order does."""
    good = pickle.dumps(np.arange(3, dtype=np.int64), protocol=2)
    assert good.count(b"i8") == 1
    (tmp_path / "file.pkl").write_bytes(good.replace(b"i8", b"O8"))
    with pytest.raises(ValueError, match="Python objects"):
        read(tmp_path / "file.pkl")


def test_a_pickle_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(
        b"c_codecs\nencode\n(N(dS'__defaults__'\n(S'x'\ntstb."
    )  # sets an attribute of what it is given
    with pytest.raises(ValueError, match="cannot read"):
        read(tmp_path / "file.pkl")
    assert forms._encode.__defaults__ is None


def test_scalars_beside_an_array_are_read(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    for protocol in range(6):
        (tmp_path / "file.pkl").write_bytes(
            pickle.dumps({"perturbation": delta, "eps": np.float32(8)}, protocol=protocol)
        )
        assert torch.equal(poisoned(data, str(tmp_path / "file.pkl"))[0], added(data, delta))
