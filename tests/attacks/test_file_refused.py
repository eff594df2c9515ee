"""What is wrong with a file of perturbations, and how the attack that reads it says so."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.file import File
from benchmark import ImageSet
from support.perturbation_files import (  # noqa: F401  two are fixtures
    Array,
    added,
    poisoned,
    refused,
    save,
    some_changes,
    some_images,
)


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (
            lambda d: d[:39],
            {},
            r"39 entries, but random has 40 training images and 4 classes; take .* with index=FILE",
        ),
        (
            lambda d: d[:4],
            {"per": "image"},
            "4 entries, but random has 40 training images and 4 classes and per=image",
        ),
        (
            lambda d: d[:, :, :7],
            {},
            r"shape \(40, 3, 7, 6\), but .* random have \(3, 8, 6\) \(nchw\) "
            r"or \(8, 6, 3\) \(nhwc\)",
        ),
        (
            lambda d: d,
            {"layout": "nhwc"},
            r"shape \(40, 3, 8, 6\), but entries for images of random have \(8, 6, 3\) \(nhwc\)",
        ),
        (lambda d: d[:, 0], {}, r"shape \(40, 8, 6\)"),
        (lambda d: d > 0, {}, "it holds true and false, expected numbers"),
        (lambda d: d.astype(complex), {}, "its dtype is complex128"),
        (lambda d: d.astype(str), {}, "its dtype is <U"),
        (lambda d: d * 40, {}, "values run from -320 to 320, but unit=levels allows at most 255"),
        (lambda d: d, {"unit": "unit"}, "values run from -8 to 8, but unit=unit allows at most 1"),
        (
            lambda d: d / 255 / 0.02,
            {},
            "too large for .* and small for levels; say unit=levels .* or undo the scaling",
        ),
        (
            lambda d: d,
            {"kind": "image"},
            "kind=image, but values begin at -8; images have none below 0",
        ),
        (
            lambda d: (d + 128).astype(np.uint8),
            {},
            "close to the middle of their range.* stored with an offset; subtract it",
        ),
        (
            lambda d: ((d[:4] + 127.5) / 255).astype(np.float32),
            {},
            "close to the middle of their range",
        ),
        (lambda d: d[:4] + 8, {"kind": "image"}, "4 entries, but random has 40 training images"),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[Array], Array],
    params: dict[str, str],
    message: str,
    data: ImageSet,
    delta: Array,
    tmp_path: Path,
) -> None:
    path = save(tmp_path / "delta.npy", make(delta))
    refused(data, path, f"delta.npy: .*{message}", **params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_entry_that_is_not_finite_is_named(
    value: float, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    array = (delta / 255).astype(np.float32)
    array[33, 2, 1, 5] = array[34, 0, 0, 0] = value
    refused(data, save(tmp_path / "delta.npy", array), "entry 33 holds NaN or an infinite value")


def test_changes_that_are_never_negative_are_noted(
    data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    x, notes, log = poisoned(
        data, save(tmp_path / "delta.npy", (delta.clip(0) / 255).astype(np.float32))
    )
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
    refused(
        data, path, r"wrapped around, 255 for -1; save array.view\(numpy.int8\) instead", **params
    )
    save(tmp_path / "delta.npy", wrapped.view(np.int8))
    assert poisoned(data, path, **params)[1]["kind"] == "delta"


def test_labels_beside_the_changes_must_be_those_of_the_images(
    data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    """What ``poison --format npz`` wrote for one order is refused for another."""
    path, labels = str(tmp_path / "made.npz"), data.y.numpy()
    np.savez(path, perturbation=delta, labels=labels)
    assert torch.equal(poisoned(data, path)[0], added(data, delta))
    np.savez(path, perturbation=delta, labels=np.roll(labels, 1))
    refused(
        data,
        path,
        "of 40 labels in it are not those of the images at the same places: "
        "it was made for another order",
    )
    np.savez(path, perturbation=delta, labels=labels[:-1])
    refused(data, path, r"its labels have shape \(39,\), but 40 images get an entry")
    np.savez(path, perturbation=delta[:5], labels=labels[3:8], index=np.arange(3, 8))
    poisoned(data, path)


def test_a_change_that_is_called_so_is_never_taken_for_images(
    data: ImageSet, tmp_path: Path
) -> None:
    """CUDA may double each pixel of dim images, so that the change is the image."""
    dim = data.with_x(data.x // 2)
    np.savez(path := str(tmp_path / "doubled.npz"), perturbation=dim.x.numpy().astype(np.int16))
    assert torch.equal(poisoned(dim, path)[0], 2 * dim.x)


def test_signed_images_and_changes_in_units_of_the_budget_are_refused(
    data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    refused(
        data,
        save(tmp_path / "signed.npy", (data.x.numpy() / 127.5 - 1).astype("float32")),
        r"look like whole images in \[-1, 1\]",
    )
    whole = save(tmp_path / "budget.npy", np.sign(delta).astype("float32"))
    refused(data, whole, r"many values are 1 or -1, .* multiply them by it")
    assert torch.equal(poisoned(data, whole, unit="levels")[0], added(data, np.sign(delta)))


def test_no_entries_and_masks_are_refused(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    np.savez(path := str(tmp_path / "none.npz"), perturbation=delta[:0], index=np.arange(0))
    refused(data, path, "it holds no entry")
    np.savez(path, perturbation=delta[:3], index=np.arange(40) < 3)
    refused(data, path, r"of a mask give the positions, numpy\.flatnonzero\(mask\)")


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
        ({"eps": 8.0}, "eps=8 is in .* write 8/255, not 8"),
        ({"per": "class", "index": "i.npy"}, "goes neither with index"),
        ({"per": "class", "kind": "image"}, "nor with kind=image"),
    ],
)
def test_parameters_are_checked(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        File(path="delta.npy", **params)


def test_the_place_of_a_file(
    data: ImageSet, delta: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"none\.npy does not exist; a path that does not start with / is looked up from",
    ):
        poisoned(data, "none.npy")
    refused(data, "https://example.org/p.pt", "is a URL, and nothing is fetched; download the file")
    refused(data, str(tmp_path), "is a folder, expected a file")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("perturbation.pt", b"")
    refused(
        data,
        str(tmp_path / "all.zip" / "perturbation.pt"),
        "leads into the file .*all.zip; archives are not opened, so unpack it",
    )
    refused(
        data,
        str(tmp_path / "all.zip"),
        "it is an archive that holds perturbation.pt; archives are not opened",
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "delta.npy", delta)
    assert torch.equal(poisoned(data, "~/delta.npy")[0], added(data, delta))
