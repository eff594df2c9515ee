"""A data set of random images, for measuring: a plugin, used as ``--dataset random_images --plugin perf/random_images.py``."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark import Context, Dataset, DatasetInfo, ImageSet, Splits, dataset


@dataset(version=1, cite="none: random bytes")
class RandomImages(Dataset):
    """Random bytes as images, in 10 equal classes; nothing can be learnt from them.

    Parameters:
        train: number of training images.
        test: number of test images.
        size: height and width in pixels.
    """

    train: int = 50_000
    test: int = 10_000
    size: int = 32

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        info = DatasetInfo("random_images", 10, tuple("0123456789"), 3, self.size, self.size, hflip=True)
        parts = []
        for split, count in (("train", self.train), ("test", self.test)):
            x = torch.randint(256, (count, 3, self.size, self.size), generator=ctx.generator(split), dtype=torch.uint8)
            parts.append(ImageSet(x, torch.arange(count) % 10, info))
        return Splits(*parts)
