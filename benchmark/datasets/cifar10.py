"""CIFAR-10, read by torchvision.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from pathlib import Path

from benchmark import Context, Dataset, Splits, dataset
from benchmark.datasets._torchvision import image_set, open_split


@dataset(version=1, cite="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images")
class CIFAR10(Dataset):
    """CIFAR-10: 50,000 + 10,000 photographs of 10 classes, 32x32.

    The files have torchvision's layout.
    """

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        from torchvision import datasets

        parts = []
        for train in (True, False):
            raw = open_split("cifar10", datasets.CIFAR10, root, download, train=train)
            parts.append(image_set(raw.data, raw.targets, "cifar10", raw.classes, hflip=True))
        return Splits(*parts)
