"""Small images and settings, for tests of the kernels and of the attack on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks._ntk import CNN, FNN, KernelMachine
from attacks.ntga import NTGA
from benchmark import ImageSet
from benchmark.contract import toy_set
from benchmark.data import DatasetInfo, to_float

EPS = 8 / 255
SMALL = NTGA(steps=2, block=16, t=64.0)
KERNELS = pytest.mark.parametrize("kernel", [CNN(8, 8), FNN()], ids=["cnn", "fnn"])


@pytest.fixture(scope="module", name="images")
def small_images() -> ImageSet:
    """40 images of 3 classes, 8x8 pixels."""
    return toy_set(classes=3, per_class=14, size=8).select(torch.arange(40))


def floats(n: int, seed: int = 0, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def machine_of(attack: NTGA, data: ImageSet, index: Tensor) -> KernelMachine:
    return attack._machine(to_float(data.x[index]), data.y[index], data.info)


def faint_set() -> ImageSet:
    """Return 60 images of 3 classes, 8x8 pixels, with a weak class pattern.

    The pattern is weaker than the noise and weaker than the budget.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = (
        128
        + 6 * torch.randn(3, 3, 8, 8, generator=generator)[y]
        + 12 * torch.randn(60, 3, 8, 8, generator=generator)
    )
    return ImageSet(
        x.round().to(torch.uint8), y, DatasetInfo("faint", 3, ("a", "b", "c"), 3, 8, 8, hflip=False)
    )
