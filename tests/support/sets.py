"""Image sets made for tests."""

from __future__ import annotations

import torch

from benchmark import ImageSet
from benchmark.data import DatasetInfo


def random_set(
    n: int, classes: int, channels: int = 3, height: int = 8, width: int = 8, seed: int = 0
) -> ImageSet:
    """Make random bytes with random labels; every class occurs if ``n`` allows it."""
    generator = torch.Generator().manual_seed(seed)
    info = DatasetInfo(
        "random", classes, tuple(map(str, range(classes))), channels, height, width, hflip=True
    )
    x = torch.randint(256, (n, channels, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(x, torch.arange(n)[torch.randperm(n, generator=generator)] % classes, info)
