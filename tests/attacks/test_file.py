"""The attack that reads others' files: every form they come in, and index maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attacks._perturbation_file import read
from benchmark import ImageSet
from support.perturbation_files import (  # noqa: F401  two are fixtures
    FORMS,
    Array,
    added,
    as_pickle,
    poisoned,
    refused,
    save,
    some_changes,
    some_images,
)
from support.sets import random_set


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_every_form_is_read_whatever_its_name(
    form: str, dtype: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    path = tmp_path / "perturbation"
    FORMS[form](path, delta.astype(dtype) if dtype == "int8" else (delta / 255).astype(dtype))
    assert torch.equal(poisoned(data, str(path))[0], added(data, delta))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f8", ">f4", "<f2"])
def test_pickled_arrays_of_any_byte_order_and_memory_order(
    order: str, dtype: str, delta: Array, tmp_path: Path
) -> None:
    array = np.array(delta, dtype, order=order)  # type: ignore[call-overload]
    for protocol in (2, 5):
        as_pickle(protocol)(tmp_path / "a.pkl", array)
        found = read(tmp_path / "a.pkl")
        again, index = found.values, found.index
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)
        assert index is None


def test_one_array_of_several_is_named(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = str(tmp_path / "several.npz")
    np.savez(path, first=delta, second=-delta)
    refused(
        data,
        path,
        r"cannot read .*several\.npz: it holds 2 arrays \(first, second\); "
        "say which one with array=NAME",
    )
    refused(data, path, 'it holds no array "sekond"; did you mean "second"', array="sekond")
    assert torch.equal(poisoned(data, path, array="second")[0], added(data, -delta))
    refused(
        data,
        save(tmp_path / "one.npy", delta),
        "one array, which has no name; leave out array=first",
        array="first",
    )


# Layouts


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        *(
            ("int8", "levels"),
            ("int16", "levels"),
            ("int64", "levels"),
            ("float32", "levels"),
            ("float64", "levels"),
        ),
        *(("float16", "unit"), ("float32", "unit"), ("float64", "unit")),
    ],
)
def test_layout_and_unit_are_recognised(
    layout: str, dtype: str, unit: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    array = (delta / 255 if unit == "unit" else delta).astype(dtype)
    path = save(tmp_path / "delta.npy", array if layout == "nchw" else array.transpose(0, 2, 3, 1))
    x, notes, log = poisoned(data, path)
    assert torch.equal(x, added(data, delta))
    expected = {
        "layout": layout,
        "unit": unit,
        "kind": "delta",
        "per": "image",
        "dtype": dtype,
        "entries": 40,
    }
    assert {name: notes[name] for name in expected} == expected
    assert (notes["covered"], notes["positive_only"]) == (1.0, False)
    assert (notes["lowest"], notes["highest"]) == (
        pytest.approx(-8, abs=0.01),
        pytest.approx(8, abs=0.01),
    )
    assert (
        f"read as layout={layout}, unit={unit}, kind=delta, per=image, dtype={dtype}, entries=40"
        in log
    )
    again, _, _ = poisoned(data, path, layout=layout, unit=unit, kind="delta", per="image")
    assert torch.equal(again, x)


@pytest.mark.parametrize("unit", ["unit", "levels"])
def test_every_level_of_every_change_is_exact(unit: str, tmp_path: Path) -> None:
    data = random_set(511, 2, 1, 16, 16)
    data = data.with_x(torch.arange(256).to(torch.uint8).view(1, 1, 16, 16).repeat(511, 1, 1, 1))
    delta = np.broadcast_to(
        np.arange(-255, 256, dtype=np.int16)[:, None, None], (511, 16, 16)
    )  # gray: (N, H, W)
    path = save(
        tmp_path / "delta.npy", delta if unit == "levels" else (delta / 255).astype(np.float32)
    )
    assert torch.equal(poisoned(data, path)[0], added(data, delta[:, None]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32 levels", "float32 unit"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_whole_images_are_recognised(
    dtype: str, layout: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    images = added(data, delta)
    array = (images.numpy() / 255 if dtype == "float32 unit" else images.numpy()).astype(
        dtype.partition(" ")[0]
    )
    path = save(tmp_path / "images.npy", array if layout == "nchw" else array.transpose(0, 2, 3, 1))
    x, notes, _ = poisoned(data, path)
    assert torch.equal(x, images)
    assert (notes["kind"], notes["layout"], "positive_only" in notes) == ("image", layout, False)
    wanted = (data.x.short() + images.short()).clamp(0, 255).to(torch.uint8)
    assert torch.equal(poisoned(data, path, kind="delta")[0], wanted)


def test_images_in_another_order_are_not_taken_for_either(data: ImageSet, tmp_path: Path) -> None:
    path = save(tmp_path / "images.npy", data.x.roll(1, 0).numpy())
    refused(
        data,
        path,
        "levels from the images at their places .* their order may be another; "
        "else say kind=image or kind=delta",
    )
    assert torch.equal(poisoned(data, path, kind="image")[0], data.x.roll(1, 0))


def test_entries_of_a_class_go_to_its_images(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "classes.npy", (delta[:4] / 255).astype(np.float32))
    x, notes, _ = poisoned(data, path)
    assert torch.equal(x, added(data, delta[:4][data.y.numpy()]))
    assert (notes["per"], notes["entries"], notes["covered"]) == ("class", 4, 1.0)
    part = data.select(
        (data.y != 2).nonzero().flatten()[:7]
    )  # unequal classes and one without images
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
    assert torch.equal(
        poisoned(data, path, layout="nhwc")[0], added(data, delta.transpose(0, 3, 1, 2))
    )


# Index maps


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", ["delta", "image"])
def test_an_index_map_places_entries(
    beside: bool, kind: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
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
        x, notes, _ = poisoned(
            data, str(path), index=save(tmp_path / "index.npy", index.astype(np.int32))
        )
    assert torch.equal(x, expected)
    assert (notes["kind"], notes["entries"], notes["covered"]) == (kind, 25, 25 / 40)


def test_an_index_map_may_lie_in_an_archive_of_its_own(
    data: ImageSet, delta: Array, tmp_path: Path
) -> None:
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
        (np.ones(40, bool), "true and false, expected numbers"),
    ],
)
def test_a_wrong_index_map_is_refused(
    index: Array, message: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    np.savez(tmp_path / "part.npz", perturbation=delta[:10], index=index)
    refused(data, str(tmp_path / "part.npz"), message)


def test_chunks_change_nothing(
    data: ImageSet, delta: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.data.CHUNK", 7 * delta[0].size)
    for name, array in (("delta", delta), ("images", added(data, delta).numpy())):
        assert torch.equal(
            poisoned(data, save(tmp_path / f"{name}.npy", array))[0], added(data, delta)
        )
