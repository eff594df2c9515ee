"""CIFAR-100, read by torchvision.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from pathlib import Path

from benchmark import Context, Dataset, Splits, dataset
from benchmark.datasets._torchvision import image_set, open_split


@dataset(version=1, cite="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images")
class CIFAR100(Dataset):
    """CIFAR-100: 50,000 + 10,000 photographs of 100 fine classes, 32x32.

    The files have torchvision's layout.
    """

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        from torchvision import datasets

        parts = []
        for train in (True, False):
            raw = open_split("cifar100", datasets.CIFAR100, root, download, train=train)
            parts.append(image_set(raw.data, raw.targets, "cifar100", raw.classes, hflip=True))
        return Splits(*parts)
