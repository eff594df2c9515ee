"""Perturbations and the files they come in, for tests of the attack that reads them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attacks.file import File
from benchmark import Context, ImageSet
from support.sets import random_set

Array = NDArray[Any]


@pytest.fixture(name="data")
def some_images() -> ImageSet:
    return random_set(40, 4, 3, 8, 6)


@pytest.fixture(name="delta")
def some_changes(data: ImageSet) -> Array:
    """Draw changes in levels, -8..8, int16 (N, C, H, W); both ends occur."""
    return np.random.default_rng(0).integers(-8, 9, data.x.shape).astype(np.int16)


def added(data: ImageSet, delta: Array) -> torch.Tensor:
    """Return the images with whole levels added."""
    return (data.x.short() + torch.from_numpy(delta.astype(np.int16))).clamp(0, 255).to(torch.uint8)


def save(path: Path, array: Array) -> str:
    np.save(path, array)
    return str(path)


def poisoned(data: ImageSet, path: str, **params: Any) -> tuple[torch.Tensor, dict[str, Any], str]:
    """Return the images, the notes and the log."""
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
    **{
        "npy": as_npy,
        "npz": as_npz,
        "pt": as_pt,
        "old pt": as_old_pt,
        "dictionary": as_pt_dictionary,
        "old pickle": as_old_pickle,
    },
    **{f"pickle {protocol}": as_pickle(protocol) for protocol in range(6)},
    "pickled dictionary": lambda path, array: path.write_bytes(
        pickle.dumps({"noise": array, "labels": array[:, 0, 0, 0]})
    ),
}
