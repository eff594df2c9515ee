"""The attack that reads others' files: every form they come in, what is refused, and that nothing in a file can run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Call
from conftest import random_set
from numpy.typing import NDArray
from tiny_bench import Bench

import attacks._perturbation_file as forms
import attacks.file as module
from attacks._perturbation_file import read
from attacks.file import File
from benchmark import Context, ImageSet
from benchmark.check import check_method
from benchmark.data import Splits
from benchmark.datasets import open_dataset
from benchmark.export import export
from benchmark.files import sha256
from benchmark.plan import make_plan
from benchmark.registry import Registry
from benchmark.scheduler import run_plan
from benchmark.spec import Spec
from benchmark.suite import Suite
from benchmark.verify import verify_poison

Array = NDArray[Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small work is done sooner by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data() -> ImageSet:
    return random_set(40, 4, 3, 8, 6)


@pytest.fixture
def delta(data: ImageSet) -> Array:
    """Changes in levels, -8..8, int16 (N, C, H, W); both ends occur."""
    return np.random.default_rng(0).integers(-8, 9, data.x.shape).astype(np.int16)


def added(data: ImageSet, delta: Array) -> torch.Tensor:
    """What adding whole levels gives."""
    return (data.x.short() + torch.from_numpy(delta.astype(np.int16))).clamp(0, 255).to(torch.uint8)


def save(path: Path, array: Array) -> str:
    np.save(path, array)
    return str(path)


def poisoned(data: ImageSet, path: str, **params: Any) -> tuple[torch.Tensor, dict[str, Any], str]:
    """The images, the notes and the log."""
    lines: list[str] = []
    ctx = Context(on_log=lines.append)
    return File(path=path, **params).poison(data, ctx).x, ctx.notes, "\n".join(lines)


def refused(data: ImageSet, path: str, message: str, **params: Any) -> None:
    with pytest.raises(ValueError, match=message):
        poisoned(data, path, **params)


# Forms of files


def as_npy(path: Path, array: Array) -> None:
    with path.open("wb") as handle:  # given a name, NumPy would add .npy to it
        np.save(handle, array)


def as_npz(path: Path, array: Array) -> None:
    with path.open("wb") as handle:
        np.savez(handle, some_name=array)


def as_pt(path: Path, array: Array) -> None:
    torch.save(torch.from_numpy(array).requires_grad_(array.dtype.kind == "f"), path)


def as_old_pt(path: Path, array: Array) -> None:
    torch.save(torch.from_numpy(array), path, _use_new_zipfile_serialization=False)


def as_pt_dictionary(path: Path, array: Array) -> None:
    torch.save({"perturbation": torch.from_numpy(array), "other": torch.zeros(2)}, path)


def as_pickle(protocol: int) -> Callable[[Path, Array], Any]:
    return lambda path, array: path.write_bytes(pickle.dumps(array, protocol=protocol))


def as_old_pickle(path: Path, array: Array) -> None:
    path.write_bytes(pickle.dumps(array, protocol=0).replace(b"numpy._core", b"numpy.core"))


FORMS: dict[str, Callable[[Path, Array], Any]] = {
    **{"npy": as_npy, "npz": as_npz, "pt": as_pt, "old pt": as_old_pt, "dictionary": as_pt_dictionary, "old pickle": as_old_pickle},
    **{f"pickle {protocol}": as_pickle(protocol) for protocol in range(6)},
    "pickled dictionary": lambda path, array: path.write_bytes(pickle.dumps({"noise": array, "labels": array[:, 0, 0, 0]})),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_every_form_is_read_whatever_its_name(form: str, dtype: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = tmp_path / "perturbation"
    FORMS[form](path, delta.astype(dtype) if dtype == "int8" else (delta / 255).astype(dtype))
    assert torch.equal(poisoned(data, str(path))[0], added(data, delta))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f8", ">f4", "<f2"])
def test_pickled_arrays_of_any_byte_order_and_memory_order(order: str, dtype: str, delta: Array, tmp_path: Path) -> None:
    array = np.array(delta, dtype, order=order)  # type: ignore[call-overload]
    for protocol in (2, 5):
        as_pickle(protocol)(tmp_path / "a.pkl", array)
        again, index = read(tmp_path / "a.pkl")
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)
        assert index is None


def test_one_array_of_several_is_named(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = str(tmp_path / "several.npz")
    np.savez(path, first=delta, second=-delta)
    refused(data, path, r"cannot read .*several\.npz: it holds 2 arrays \(first, second\); say which one with array=NAME")
    refused(data, path, 'it holds no array "sekond"; did you mean "second"', array="sekond")
    assert torch.equal(poisoned(data, path, array="second")[0], added(data, -delta))
    refused(data, save(tmp_path / "one.npy", delta), "one array, which has no name; leave out array=first", array="first")


# Layouts


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        *(("int8", "levels"), ("int16", "levels"), ("int64", "levels"), ("float32", "levels"), ("float64", "levels")),
        *(("float16", "unit"), ("float32", "unit"), ("float64", "unit")),
    ],
)
def test_layout_and_unit_are_recognised(layout: str, dtype: str, unit: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    array = (delta / 255 if unit == "unit" else delta).astype(dtype)
    path = save(tmp_path / "delta.npy", array if layout == "nchw" else array.transpose(0, 2, 3, 1))
    x, notes, log = poisoned(data, path)
    assert torch.equal(x, added(data, delta))
    expected = {"layout": layout, "unit": unit, "kind": "delta", "per": "image", "dtype": dtype, "entries": 40}
    assert {name: notes[name] for name in expected} == expected
    assert (notes["covered"], notes["positive_only"]) == (1.0, False)
    assert (notes["lowest"], notes["highest"]) == (pytest.approx(-8, abs=0.01), pytest.approx(8, abs=0.01))
    assert f"read as layout={layout}, unit={unit}, kind=delta, per=image, dtype={dtype}, entries=40" in log
    again, _, _ = poisoned(data, path, layout=layout, unit=unit, kind="delta", per="image")
    assert torch.equal(again, x)


@pytest.mark.parametrize("unit", ["unit", "levels"])
def test_every_level_of_every_change_is_exact(unit: str, tmp_path: Path) -> None:
    data = random_set(511, 2, 1, 16, 16)
    data = data.with_x(torch.arange(256).to(torch.uint8).view(1, 1, 16, 16).repeat(511, 1, 1, 1))
    delta = np.broadcast_to(np.arange(-255, 256, dtype=np.int16)[:, None, None], (511, 16, 16))  # gray: (N, H, W)
    path = save(tmp_path / "delta.npy", delta if unit == "levels" else (delta / 255).astype(np.float32))
    assert torch.equal(poisoned(data, path)[0], added(data, delta[:, None]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32 levels", "float32 unit"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_whole_images_are_recognised(dtype: str, layout: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    images = added(data, delta)
    array = (images.numpy() / 255 if dtype == "float32 unit" else images.numpy()).astype(dtype.partition(" ")[0])
    path = save(tmp_path / "images.npy", array if layout == "nchw" else array.transpose(0, 2, 3, 1))
    x, notes, _ = poisoned(data, path)
    assert torch.equal(x, images)
    assert (notes["kind"], notes["layout"], "positive_only" in notes) == ("image", layout, False)
    wanted = (data.x.short() + images.short()).clamp(0, 255).to(torch.uint8)
    assert torch.equal(poisoned(data, path, kind="delta")[0], wanted)


def test_images_in_another_order_are_not_taken_for_either(data: ImageSet, tmp_path: Path) -> None:
    path = save(tmp_path / "images.npy", data.x.roll(1, 0).numpy())
    refused(data, path, r"levels from the images at their places .* their order may be another; else say kind=image or kind=delta")
    assert torch.equal(poisoned(data, path, kind="image")[0], data.x.roll(1, 0))


def test_entries_of_a_class_go_to_its_images(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "classes.npy", (delta[:4] / 255).astype(np.float32))
    x, notes, _ = poisoned(data, path)
    assert torch.equal(x, added(data, delta[:4][data.y.numpy()]))
    assert (notes["per"], notes["entries"], notes["covered"]) == ("class", 4, 1.0)
    part = data.select((data.y != 2).nonzero().flatten()[:7])  # unequal classes and one without images
    assert torch.equal(poisoned(part, path)[0], added(part, delta[:4][part.y.numpy()]))


def test_as_many_images_as_classes(delta: Array, tmp_path: Path) -> None:
    data = random_set(4, 4, 3, 8, 6)
    path = save(tmp_path / "delta.npy", delta[:4])
    refused(data, path, "4 is the number of images and that of classes; say per=image or per=class")
    assert torch.equal(poisoned(data, path, per="image")[0], added(data, delta[:4]))
    assert torch.equal(poisoned(data, path, per="class")[0], added(data, delta[:4][data.y.numpy()]))


def test_channels_that_may_be_first_or_last(tmp_path: Path) -> None:
    data = random_set(5, 2, 3, 3, 3)
    delta = np.random.default_rng(0).integers(-8, 9, data.x.shape)
    path = save(tmp_path / "delta.npy", delta)
    refused(data, path, "channels may be first or last .*; say layout=nchw or layout=nhwc")
    assert torch.equal(poisoned(data, path, layout="nchw")[0], added(data, delta))
    assert torch.equal(poisoned(data, path, layout="nhwc")[0], added(data, delta.transpose(0, 3, 1, 2)))


# Index maps


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", ["delta", "image"])
def test_an_index_map_places_entries(beside: bool, kind: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    index = np.random.default_rng(1).permutation(40)[:25]
    expected = data.x.clone()
    expected[index] = added(data, delta)[index]
    entries = delta[index] if kind == "delta" else expected[index].numpy()
    path = tmp_path / "part.npz"
    if beside:
        np.savez(path, perturbation=entries, index=index)
        x, notes, _ = poisoned(data, str(path))
    else:
        np.savez(path, perturbation=entries, index=index[::-1])  # the parameter goes before it
        x, notes, _ = poisoned(data, str(path), index=save(tmp_path / "index.npy", index.astype(np.int32)))
    assert torch.equal(x, expected)
    assert (notes["kind"], notes["entries"], notes["covered"]) == (kind, 25, 25 / 40)


def test_an_index_map_may_lie_in_an_archive_of_its_own(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    np.savez(tmp_path / "index.npz", index=np.arange(39, 35, -1))
    path = save(tmp_path / "delta.npy", delta[:4])  # as many as classes: the map decides
    x, _, _ = poisoned(data, path, index=str(tmp_path / "index.npz"))
    assert torch.equal(x[36:], added(data.select(torch.arange(36, 40)), delta[:4][::-1].copy()))
    assert torch.equal(x[:36], data.x[:36])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.arange(9), "places 9 entries, but there are 10"),
        (np.arange(31, 41), r"positions from 31 to 40, expected 0\.\.39"),
        (np.arange(-1, 9), r"positions from -1 to 8, expected 0\.\.39"),
        (np.array([0, *range(9)]), "names an image twice"),
        (np.arange(10.0), r"index map is float64 \(10,\), expected integers \(10,\)"),
        (np.arange(10)[None], r"index map is int64 \(1, 10\), expected integers"),
        (np.ones(40, bool), "its dtype is bool"),
    ],
)
def test_a_wrong_index_map_is_refused(index: Array, message: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", perturbation=delta[:10], index=index)
    refused(data, str(tmp_path / "part.npz"), message)


# What is wrong with a file


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (lambda d: d[:39], {}, r"39 entries, but random has 40 training images and 4 classes; take .* with index=FILE"),
        (lambda d: d[:4], {"per": "image"}, "4 entries, but random has 40 training images and 4 classes and per=image"),
        (lambda d: d[:, :, :7], {}, r"shape \(40, 3, 7, 6\), but .* random have \(3, 8, 6\) \(nchw\) or \(8, 6, 3\) \(nhwc\)"),
        (lambda d: d, {"layout": "nhwc"}, r"shape \(40, 3, 8, 6\), but entries for images of random have \(8, 6, 3\) \(nhwc\)"),
        (lambda d: d[:, 0], {}, r"shape \(40, 8, 6\)"),
        (lambda d: d > 0, {}, "its dtype is bool, expected integers or floats"),
        (lambda d: d.astype(complex), {}, "its dtype is complex128"),
        (lambda d: d.astype(str), {}, "its dtype is <U"),
        (lambda d: d * 40, {}, "values run from -320 to 320, but unit=levels allows at most 255"),
        (lambda d: d, {"unit": "unit"}, "values run from -8 to 8, but unit=unit allows at most 1"),
        (lambda d: d / 255 / 0.02, {}, "too large for .* and small for levels; say unit=levels .* or undo the scaling"),
        (lambda d: d, {"kind": "image"}, "kind=image, but values begin at -8; images have none below 0"),
        (lambda d: d[:4] + 8, {"kind": "image"}, "4 entries, but random has 40 training images"),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[Array], Array], params: dict[str, str], message: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    path = save(tmp_path / "delta.npy", make(delta))
    refused(data, path, f"delta.npy: .*{message}", **params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_entry_that_is_not_finite_is_named(value: float, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    array = (delta / 255).astype(np.float32)
    array[33, 2, 1, 5] = array[34, 0, 0, 0] = value
    refused(data, save(tmp_path / "delta.npy", array), "entry 33 holds NaN or an infinite value")


def test_changes_that_are_never_negative_are_noted(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    x, notes, log = poisoned(data, save(tmp_path / "delta.npy", (delta.clip(0) / 255).astype(np.float32)))
    assert torch.equal(x, added(data, delta.clip(0)))
    assert notes["positive_only"] is True
    assert "no change is negative (positive_only), as in the sets that EM released" in log


@pytest.mark.parametrize("params", [{}, {"kind": "delta"}])
@pytest.mark.parametrize("entries", [4, 40])
def test_negative_changes_that_wrapped_around_are_refused(
    entries: int, params: dict[str, str], data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    wrapped = delta[:entries].astype(np.int8).view(np.uint8)
    path = save(tmp_path / "delta.npy", wrapped)
    refused(data, path, r"wrapped around, 255 for -1; save array.view\(numpy.int8\) instead", **params)
    save(tmp_path / "delta.npy", wrapped.view(np.int8))
    assert poisoned(data, path, **params)[1]["kind"] == "delta"


def test_black_and_white_images_are_no_wrapped_changes(data: ImageSet, tmp_path: Path) -> None:
    sharp = data.with_x((data.x > 127).to(torch.uint8) * 255)
    x, notes, _ = poisoned(sharp, save(tmp_path / "images.npy", sharp.x.numpy()))
    assert torch.equal(x, sharp.x)
    assert notes["kind"] == "image"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layout": "hwc"}, 'layout="hwc", expected auto, nchw or nhwc'),
        ({"unit": "float"}, 'unit="float", expected auto, unit or levels'),
        ({"kind": "noise"}, 'kind="noise", expected auto, delta or image'),
        ({"per": "sample"}, 'per="sample", expected auto, image or class'),
        ({"eps": 8.0}, "eps=8.0 is in .* write 8/255, not 8"),
        ({"per": "class", "index": "i.npy"}, "goes neither with index"),
        ({"per": "class", "kind": "image"}, "nor with kind=image"),
    ],
)
def test_parameters_are_checked(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        File(path="delta.npy", **params)


def test_the_place_of_a_file(data: ImageSet, delta: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npy does not exist; a path that does not start with / is looked up from"):
        poisoned(data, "none.npy")
    refused(data, "https://example.org/p.pt", "is a URL, and nothing is fetched; download the file")
    refused(data, str(tmp_path), "is a folder, expected a file")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("perturbation.pt", b"")
    refused(data, str(tmp_path / "all.zip" / "perturbation.pt"), "leads into the file .*all.zip; archives are not opened, so unpack it")
    refused(data, str(tmp_path / "all.zip"), "it is an archive that holds perturbation.pt; archives are not opened")
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "delta.npy", delta)
    assert torch.equal(poisoned(data, "~/delta.npy")[0], added(data, delta))


def test_chunks_change_nothing(data: ImageSet, delta: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    for name, array in (("delta", delta), ("images", added(data, delta).numpy())):
        assert torch.equal(poisoned(data, save(tmp_path / f"{name}.npy", array))[0], added(data, delta))


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
        torch.save({"perturbation": torch.zeros(3), "more": Runs(marker)}, path, _use_new_zipfile_serialization=form == "pt")


@pytest.mark.parametrize("form", ["pickle 0", "pickle 2", "pickle 4", "pickle 5", "instance", "inside", "npy", "npz", "pt", "old pt"])
def test_a_file_with_code_is_refused_and_runs_nothing(form: str, data: ImageSet, tmp_path: Path) -> None:
    path, marker = tmp_path / "file", tmp_path / "ran"
    hostile(path, marker, form)
    reason = "bject" if form.startswith("np") else r"it asks for posix\.system, and only numbers are taken from strangers' files"
    refused(data, str(path), f"cannot read .*{reason}.*; expected numbers in .npy, .npz, .pt or .pkl")
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
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", r"it asks for numpy\.ndarray\.__init__"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "it holds a partial, expected an array"),
        (b"ccopyreg\n_reconstructor\n.", r"it asks for copyreg\._reconstructor"),
        (b"c_codecs\nencode\n(S'abc'\nS'zlib'\ntR.", "encodes bytes as zlib, expected latin1"),
        (b"\x80\x02\x82\x07.", "unregistered extension code 7"),
        (b"Pname\n.", "persistent"),
        (b"\x80\x04]\x94.", "it holds a list, expected an array or a dictionary of arrays"),
        (pickle.dumps(np.array([print], dtype=object), protocol=2), "its pickled array holds Python objects, not integers or floats"),
        (pickle.dumps(np.array([{}], dtype=object), protocol=5), "its pickled array holds Python objects"),
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
    """NumPy's own ``dtype.__setstate__`` takes flags from the pickle; here only the byte order is looked at."""
    good = pickle.dumps(np.arange(3, dtype=np.int64), protocol=2)
    assert good.count(b"i8") == 1
    (tmp_path / "file.pkl").write_bytes(good.replace(b"i8", b"O8"))
    with pytest.raises(ValueError, match="Python objects"):
        read(tmp_path / "file.pkl")


def test_a_pickle_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(b"c_codecs\nencode\n(N(dS'__defaults__'\n(S'x'\ntstb.")  # sets an attribute of what it is given
    with pytest.raises(ValueError, match="cannot read"):
        read(tmp_path / "file.pkl")
    assert forms._encode.__defaults__ is None


def test_scalars_beside_an_array_are_read(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    for protocol in range(6):
        (tmp_path / "file.pkl").write_bytes(pickle.dumps({"perturbation": delta, "eps": np.float32(8)}, protocol=protocol))
        assert torch.equal(poisoned(data, str(tmp_path / "file.pkl"))[0], added(data, delta))


# The harness around it


@pytest.mark.parametrize("form", ["pt", "npz"])
def test_what_export_writes_comes_back_byte_for_byte(form: str, data: ImageSet, delta: Array, tmp_path: Path) -> None:
    protected = data.with_x(added(data, 5 * delta))
    export(tmp_path / "out", form, protected, Splits(data, data), {})
    path = str(tmp_path / "out" / {"pt": "perturbation.pt", "npz": "images.npz"}[form])
    assert torch.equal(poisoned(data, path)[0], protected.x)
    if form == "npz":
        assert torch.equal(poisoned(data, path, array="images")[0], protected.x)


def test_a_poison_that_was_written_is_the_same_poison_again(bench: Bench, tmp_path: Path) -> None:
    """Through plan, stages and store, as the command ``poison`` does it."""

    def poison(attack: str) -> ImageSet:
        stage, _ = bench.plan(attacks=attack).stages
        assert run_plan([stage], bench.store, bench.machine, executor="inline", display="none").exit_code == 0
        return bench.store.load_images(stage.key)

    source = open_dataset(Spec("folder", {"path": str(bench.images), "size": 16}), bench.data_root, bench.registry)
    first = poison("lsp[patch=4]")
    export(tmp_path / "out", "pt", first, source, {})
    assert poison(f"file[path={tmp_path}/out/perturbation.pt]").fingerprint == first.fingerprint != source.train.fingerprint


def test_the_command_line_tells_a_missing_file_before_the_work(call: Call, images: Path) -> None:
    missing = call("poison", "file[path=nowhere.pt]", "--dataset", f"folder[path={images},size=16]", "--out", "third")
    assert missing.code == 2
    assert "error: nowhere.pt does not exist; a path that does not start with / is looked up from" in missing.err


def test_a_bound_is_verified_after_rounding(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "delta.npy", delta)
    free, bounded, tight = File(path=path), File(path=path, eps=8 / 255), File(path=path, eps=7 / 255)
    result = free.poison(data, Context())
    assert (free.norm, bounded.norm, File.norm) == ("none", "linf", "none")
    verify_poison(data, result, free)
    verify_poison(data, result, bounded)
    with pytest.raises(ValueError, match=r"breaks its budget: .* L-inf 8\.0/255, allowed L-inf 7\.5/255"):
        verify_poison(data, result, tight)


@pytest.mark.parametrize("eps", [0.0, 8 / 255])
def test_the_contract_is_kept_with_a_file(eps: float, tmp_path: Path, registry: Registry) -> None:
    path = save(tmp_path / "delta.npy", np.random.default_rng(0).integers(-8, 9, (10, 3, 32, 32)).astype(np.int8))
    results = check_method("attack", "file", registry, {"path": path, "eps": eps})
    assert [result.detail for result in results if not result.passed] == []
    assert [result.name for result in results] == ["build", "card", "documentation", "units", "poison", "seed"]


def test_without_a_file_the_contract_is_checked_in_part(registry: Registry) -> None:
    results = check_method("attack", "file", registry)
    assert [(result.name, result.passed) for result in results] == [("build", True), ("card", True), ("documentation", True)]
    assert results[0].detail == "not built, since it needs path and toy does not say; only its card and documentation are checked"


# Keys


def keys(registry: Registry, *attacks: str, **more: Any) -> dict[str, str]:
    """Attack -> key of its poison."""
    suite = Suite(name="s", datasets=("embedded",), attacks=attacks, defenses=("none", "grayscale"), protocols=("quick",))
    plan = make_plan(suite, registry, str, "fp32", **more)
    return {str(stage.payload["attack"]["label"]): stage.key for stage in plan.stages if stage.kind == "poison"}


def test_the_content_of_a_file_is_in_the_key(registry: Registry, delta: Array, tmp_path: Path) -> None:
    save(tmp_path / "a.npy", delta)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    a, b = f"file[path={tmp_path}/a.npy]", f"file[path={tmp_path}/b.npy]"
    first = keys(registry, a)[a]
    assert keys(registry, b)[b] == first  # moved or renamed: the same
    assert keys(registry, f"file[path={tmp_path}/a.npy,kind=delta]").popitem()[1] != first
    save(tmp_path / "a.npy", delta + 1)
    assert keys(registry, a)[a] != first


def test_the_content_of_the_index_map_is_in_the_key(registry: Registry, delta: Array, tmp_path: Path) -> None:
    spec = f"file[path={save(tmp_path / 'a.npy', delta)},index={save(tmp_path / 'i.npy', np.arange(40))}]"
    first = keys(registry, spec)[spec]
    save(tmp_path / "i.npy", np.arange(40)[::-1])
    assert keys(registry, spec)[spec] != first


def test_a_file_is_read_once_a_plan_and_named_in_the_record(registry: Registry) -> None:
    asked: list[str] = []

    def content(path: str) -> str:
        asked.append(path)
        return f"content of {path}"

    attacks = ("none", "file[path=a.pt]+ops", "file[path=b.pt,index=c]")
    suite = Suite(name="s", datasets=("embedded",), attacks=attacks, defenses=("none", "grayscale"), protocols=("quick",))
    cells = [cell for cell in (stage.payload.get("cell") for stage in make_plan(suite, registry, str, "fp32", content).stages) if cell]
    assert asked == ["a.pt", "b.pt", "c"]
    specs = [cell["attack_spec"] for cell in cells]
    assert len(specs) == 6
    assert specs[2]["files"] == {"path": "content of a.pt"}
    assert specs[2]["params"]["path"] == "a.pt"
    assert specs[4]["files"] == {"path": "content of b.pt", "index": "content of c"}
    assert all("files" not in spec for spec in (specs[0], specs[2]["then"]))


def test_a_missing_file_is_told_when_planning(registry: Registry) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
        keys(registry, "file[path=nowhere.pt]")


def test_a_file_that_changes_after_planning_is_refused(bench: Bench, tmp_path: Path) -> None:
    save(tmp_path / "delta.npy", np.ones((2, 3, 16, 16), np.int8))
    attack = f"file[path={tmp_path}/delta.npy]"
    plan = bench.plan(attacks=attack)
    save(tmp_path / "delta.npy", np.full((2, 3, 16, 16), 2, np.int8))
    outcome = run_plan(plan.stages[:1], bench.store, bench.machine, executor="inline", display="none")
    assert f"{tmp_path}/delta.npy changed since this run was planned; run again" in outcome.failures[0].error
    stage = bench.plan(attacks=attack).stages[0]
    assert run_plan([stage], bench.store, bench.machine, executor="inline", display="none").exit_code == 0
    facts = bench.store.manifest(stage.key)["facts"]
    assert (facts["positive_only"], facts["highest"], facts["linf"]) == (True, 2.0, pytest.approx(2 / 255))


def test_files_that_are_no_parameters_are_told(tmp_path: Path) -> None:
    source = (
        'from benchmark import Attack, attack\n\n@attack(version=1, cite="x")\nclass Mine(Attack):\n    """Mine."""\n    files = ("pat",)\n'
    )
    (tmp_path / "mine.py").write_text(source + "    path: str\n")
    registry = Registry((tmp_path / "mine.py",))
    with pytest.raises(ValueError, match="files of class Mine names pat, which is no parameter"):
        registry.resolve("attack", Spec("mine", {"path": "a"}))


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(str(tmp_path / "a")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
