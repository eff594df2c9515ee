"""A data set of random images, for measuring.

It is a plugin: ``--dataset random_images --plugin perf/random_images.py``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark import Context, Dataset, DatasetInfo, ImageSet, Splits, dataset


@dataset(version=1, cite="none: random bytes")
class RandomImages(Dataset):
    """Random bytes as images, in 10 equal classes; without a hint nothing can be learnt from them.

    Parameters: train: number of training images. test: number of test images. size: height and
    width in pixels. hint: number of levels by which a tenth of an image's columns is darker; the
    first tenth for the first class, the second for the second, and so on.
    """

    train: int = 50_000
    test: int = 10_000
    size: int = 32
    hint: int = 0

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        info = DatasetInfo(
            "random_images", 10, tuple("0123456789"), 3, self.size, self.size, hflip=True
        )
        parts = []
        for split, count in (("train", self.train), ("test", self.test)):
            x = torch.randint(
                256,
                (count, 3, self.size, self.size),
                generator=ctx.generator(split),
                dtype=torch.uint8,
            )
            for label in range(10 if self.hint else 0):
                where = slice(label * self.size // 10, (label + 1) * self.size // 10)
                x[label::10, ..., where] = x[label::10, ..., where].clamp_min(self.hint) - self.hint
            parts.append(ImageSet(x, torch.arange(count) % 10, info))
        return Splits(*parts)
