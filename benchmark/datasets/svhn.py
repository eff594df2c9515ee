"""SVHN, read by torchvision.

Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
"""

from __future__ import annotations

from pathlib import Path

from benchmark import Context, Dataset, Splits, dataset
from benchmark.datasets._torchvision import image_set, open_split

DIGITS = tuple("0123456789")


@dataset(
    version=1,
    cite="Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning",
)
class SVHN(Dataset):
    """SVHN: 73,257 + 26,032 house-number digits, 32x32, in classes of unequal size.

    The files lie in the data folder itself.
    """

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        from torchvision import datasets

        parts = []
        for split in ("train", "test"):
            raw = open_split("svhn", datasets.SVHN, root, download, split=split)
            # A mirrored 2 is no 2, so there is no flip. torchvision has changed label 10 into 0 and
            # put the channels first.
            parts.append(image_set(raw.data, raw.labels, "svhn", DIGITS, hflip=False))
        return Splits(*parts)
