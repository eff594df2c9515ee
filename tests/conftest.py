"""Fixtures that tests share: small learnable image sets and a context. Everything is built in memory, with fixed seeds."""

from __future__ import annotations

import pytest
import torch

from benchmark import Context, ImageSet
from benchmark.check import toy_set
from benchmark.data import DatasetInfo
from benchmark.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The project's own methods."""
    return Registry()


@pytest.fixture(scope="session")
def toy() -> ImageSet:
    """60 images of 3 classes, 16x16 pixels, that a small network learns in a few dozen steps."""
    return toy_set(classes=3, per_class=20, size=16)


@pytest.fixture(scope="session")
def toy10() -> ImageSet:
    """60 images of 10 classes, 32x32 pixels."""
    return toy_set()


@pytest.fixture
def ctx() -> Context:
    return Context(seed_axes=("test", 0))


def random_set(n: int, classes: int, channels: int = 3, height: int = 8, width: int = 8, seed: int = 0) -> ImageSet:
    """Random bytes with random labels; every class occurs if ``n`` allows it."""
    generator = torch.Generator().manual_seed(seed)
    info = DatasetInfo("random", classes, tuple(map(str, range(classes))), channels, height, width, hflip=True)
    x = torch.randint(256, (n, channels, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(x, torch.arange(n)[torch.randperm(n, generator=generator)] % classes, info)
