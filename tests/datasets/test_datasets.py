"""The data sets that come with uebench: the embedded recipe, and torchvision's."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from benchmark.api import Context, Dataset
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import SUBSET_PARAMS, Spec, parse_spec
from benchmark.data import Splits
from benchmark.datasets._open import open_dataset
from benchmark.datasets._torchvision import image_set
from benchmark.datasets.embedded import Embedded

REGISTRY = Registry()
EMBEDDED_GOLDEN = "5e489de8932abc25d102b7f7e2611bf78abce86c241db19702131b3f49804b73"


@pytest.fixture(scope="module")
def embedded() -> Splits:
    return Embedded(scenes=1).load(Path("/nowhere"), Context())


def test_embedded_is_the_same_to_the_byte(embedded: Splits) -> None:
    again = Embedded(scenes=1).load(Path("/elsewhere"), Context(seed_axes=("other",)))
    for split in (embedded, again):
        content = b"".join(
            part.numpy().tobytes()
            for data in (split.train, split.test)
            for part in (data.x, data.y)
        )
        assert hashlib.sha256(content).hexdigest() == EMBEDDED_GOLDEN


def test_embedded_seeds_differ_in_scenes_and_split(embedded: Splits) -> None:
    other = Embedded(scenes=1, seed=1).load(Path("/nowhere"), Context())
    assert not torch.equal(other.train.y, embedded.train.y)
    assert (other.train.x != embedded.train.x).float().mean() > 0.9


def test_embedded_counts_and_info(embedded: Splits) -> None:
    assert (len(embedded.train), len(embedded.test)) == (1400, 397)
    assert torch.equal(
        embedded.train.y.bincount() + embedded.test.y.bincount(),
        torch.tensor([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    )
    assert tuple(embedded.train.x.shape[1:]) == (3, 32, 32)
    assert not embedded.info.hflip
    assert embedded.train.x.min() < 10
    assert embedded.train.x.max() > 245


def test_embedded_scenes_repeat_each_digit() -> None:
    data = Embedded(scenes=2).load(Path("/nowhere"), Context()).train
    assert len(data) == 2800
    assert torch.equal(data.y[::2], data.y[1::2])
    assert not torch.equal(data.x[::2], data.x[1::2])


def test_embedded_digits_stand_out_by_luminance(embedded: Splits) -> None:
    """Ink differs from the crop's mean by 0.30 to 0.45 at opacity 0.7 to 0.95.

    So the farthest pixel is at least about 0.2 away.
    """
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luminance = (embedded.train.x.float() / 255 * weights).sum(1).flatten(1)
    farthest = (luminance - luminance.median(1, keepdim=True).values).abs().max(1).values
    assert farthest.quantile(0.01) > 0.18
    assert farthest.median() < 0.6


def test_embedded_refuses_no_scenes() -> None:
    with pytest.raises(
        ValueError, match=r'dataset "embedded\[scenes=0\]": scenes=0, expected at least 1'
    ):
        REGISTRY.build("dataset", parse_spec("embedded[scenes=0]"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_missing_set_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=rf'"{name}" is not in .*--download.*--data-root.*folder\[path=...\]',
    ):
        open_dataset(Spec(name), tmp_path, REGISTRY)


@pytest.mark.parametrize(
    "error", [RuntimeError("File not found or corrupted."), ConnectionError("no network")]
)
def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(root: Path, **kwargs: object) -> None:
        assert kwargs == {"train": True, "download": True}
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(
        OSError, match=rf'"cifar10" could not be .*{error}.*check the network.*--data-root'
    ):
        open_dataset(Spec("cifar10"), tmp_path, REGISTRY, download=True)


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    data = np.random.default_rng(0).integers(0, 256, (2 * count, 32, 32, 3), dtype=np.uint8)
    names = [f"class {i}" for i in range(count)]
    calls = []

    def fake(root: Path, train: bool, download: bool) -> SimpleNamespace:
        calls.append((root, train, download))
        size = 2 * count if train else count
        return SimpleNamespace(
            data=data[:size], targets=list(range(count)) * (size // count), classes=names
        )

    monkeypatch.setattr(torchvision.datasets, name.upper(), fake)
    splits = open_dataset(Spec(name), tmp_path, REGISTRY)
    assert calls == [(tmp_path, True, False), (tmp_path, False, False)]
    assert np.array_equal(splits.train.x.permute(0, 2, 3, 1).numpy(), data)
    assert splits.train.y.dtype == torch.int64
    assert len(splits.test) == count
    assert splits.info.class_names == tuple(names)
    assert splits.info.hflip


def test_svhn_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1])  # unequal classes

    def fake(root: Path, split: str, download: bool) -> SimpleNamespace:
        size = {"train": 13, "test": 11}[split]
        return SimpleNamespace(data=data[:size], labels=labels[:size])

    monkeypatch.setattr(torchvision.datasets, "SVHN", fake)
    splits = open_dataset(Spec("svhn"), tmp_path, REGISTRY)
    assert np.array_equal(splits.train.x.numpy(), data)
    assert splits.train.y.bincount().tolist() == [1, 4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert len(splits.test) == 11
    assert not splits.info.hflip


def test_arrays_that_are_no_colour_images() -> None:
    with pytest.raises(
        ValueError, match=r"images of odd have shape \(2, 8, 8\), expected \(N, 3, H, W\)"
    ):
        image_set(np.zeros((2, 8, 8), np.uint8), [0, 1], "odd", ["a", "b"], True)


def test_the_parameters_of_a_subset_are_those_that_every_data_set_has() -> None:
    assert tuple(field.name for field in fields(Dataset)) == SUBSET_PARAMS


def test_embedded_validation_split_holds_out_whole_digits(tmp_path: Path) -> None:
    """Three scenes of a digit are neighbours, so 60 images of a class are 20 digits."""
    splits = open_dataset(parse_spec("embedded[validation_per_class=60]"), tmp_path, REGISTRY)
    whole = open_dataset(parse_spec("embedded"), tmp_path, REGISTRY).train
    assert (len(splits.train), len(splits.test)) == (3600, 600)
    digit_of = {image.numpy().tobytes(): i // 3 for i, image in enumerate(whole.x)}
    trained, held_out = (
        {digit_of[image.numpy().tobytes()] for image in part.x}
        for part in (splits.train, splits.test)
    )
    assert len(held_out) == 200
    assert not trained & held_out


def test_embedded_in_another_size_shows_the_same_scenes() -> None:
    """The digit, its place and its colour scale with the image; the crop has fewer pixels."""
    large, small = (
        Embedded(scenes=1, size=size).load(Path("/nowhere"), Context()).train for size in (32, 16)
    )
    assert small.info.height == small.info.width == 16
    assert tuple(small.x.shape) == (1400, 3, 16, 16)
    assert torch.equal(small.y, large.y)
    # The lightest and the darkest pixel are ink or ground in both.
    extremes = [data.x.float().flatten(1).std(1) for data in (large, small)]
    assert torch.corrcoef(torch.stack(extremes))[0, 1] > 0.7
