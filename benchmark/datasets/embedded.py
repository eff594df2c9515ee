"""Draw scikit-learn's handwritten digits over its sample photographs; this needs no download.

The images follow MNIST-M (Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR
2016), which blends digits with patches of photographs. Digits: Alpaydin and Kaynak, "Optical
Recognition of Handwritten Digits", UCI, 1998.

The bytes are meant to be the same with every version of numpy and on every machine: random numbers
come from ``Generator.random`` alone, arithmetic is elementwise float64, and the sines are rounded,
so that the last bit of a sine or of a sum does not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from benchmark import Context, Dataset, DatasetInfo, ImageSet, Splits, dataset
from benchmark.data import chunks
from benchmark.keys import axis_seed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRAIN_DIGITS = 1400  # of the 1,797; the other 397 are for testing
DIGIT_SIDE = (0.625, 0.875)  # of the enlarged 8x8 digit, as a share of the image's side
MAX_ANGLE = 20.0  # degrees, either way
ALPHA = (0.7, 0.95)  # opacity of full ink
# Between the ink and the crop's mean; below 0.5, so that there is always room above or below.
LUMINANCE_GAP = (0.30, 0.45)
CONTRAST = 0.6  # of the background about its mean
LUMINANCE = (0.299, 0.587, 0.114)  # weights of R, G, B, ITU-R BT.601
CHUNK = 512  # images drawn at once: 50 MB of working memory


@dataset(
    version=1,
    cite="digits: Alpaydin and Kaynak 1998 (UCI); manner of MNIST-M: arXiv:1505.07818",
    later=("size",),
)
class Embedded(Dataset):
    """Handwritten digits over photograph crops, RGB, 4,200 + 1,191 images; no download.

    Parameters:
        seed: of the split and of every scene.
        scenes: images drawn of each digit.
        size: height and width of the images in pixels.
    """

    seed: int = 0
    scenes: Annotated[int, Ge(1)] = 3
    size: Annotated[int, Interval(ge=16, le=64)] = 32

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        from sklearn.datasets import load_digits, load_sample_images

        digits = load_digits()
        photos = load_sample_images().images  # two, uint8 (427, 640, 3)
        order = np.argsort(self._rng("split").random(len(digits.target)), kind="stable")
        info = DatasetInfo(
            "embedded", 10, tuple("0123456789"), 3, self.size, self.size, hflip=False
        )
        parts = []
        for split, members in (("train", order[:TRAIN_DIGITS]), ("test", order[TRAIN_DIGITS:])):
            which = np.repeat(members, self.scenes)
            x = self._draw(digits.images[which] / 16.0, photos, self._rng(split))
            y = digits.target[which].astype(np.int64)
            parts.append(ImageSet(torch.from_numpy(x), torch.from_numpy(y), info))
        return Splits(*parts)

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(axis_seed("embedded", self.seed, purpose))

    def _draw(
        self, ink: Floats, photos: list[NDArray[np.uint8]], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Draw a scene for each digit, ``ink`` (N, 8, 8) in [0, 1]: uint8 (N, 3, size, size)."""
        draws = rng.random((len(ink), 13))  # a row for each image; each column has one use below
        size = self.size
        out = np.empty((len(ink), 3, size, size), np.uint8)
        for part in chunks(len(ink), CHUNK):
            u = draws[part]
            crop = _crops(photos, u[:, 0], u[:, 1], u[:, 2], size)  # (n, 3, size, size)
            # The sum of integers is exact in any order; the division comes after it.
            total = crop.sum((2, 3), dtype=np.int64)[:, :, None, None]
            mean = total / (size * size * 255.0)  # (n, 3, 1, 1)
            background = mean + CONTRAST * (crop / 255.0 - mean)
            digits = _place(ink[part], u[:, 4], u[:, 5], u[:, 6], u[:, 7], size)  # (n, size, size)
            cover = (_between(ALPHA, u[:, 3])[:, None, None] * digits)[:, None]
            inks = _colour(_luminance(mean[:, :, 0, 0]), u[:, 8], u[:, 9], u[:, 10:13])  # (n, 3)
            scene = background * (1 - cover) + inks[:, :, None, None] * cover
            out[part] = np.floor(np.clip(scene, 0, 1) * 255 + 0.5).astype(np.uint8)
        return out


def _between(bounds: tuple[float, float], u: Floats) -> Floats:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _crops(
    photos: list[NDArray[np.uint8]], which: Floats, down: Floats, along: Floats, size: int
) -> NDArray[np.uint8]:
    """Cut squares at random places of random photographs: uint8 (n, 3, size, size)."""
    stack = np.stack(photos)  # (2, H, W, 3)
    photo = (which * len(stack)).astype(np.int64)
    top = (down * (stack.shape[1] - size + 1)).astype(np.int64)
    left = (along * (stack.shape[2] - size + 1)).astype(np.int64)
    step = np.arange(size)
    rows, columns = top[:, None, None] + step[:, None], left[:, None, None] + step
    picked: NDArray[np.uint8] = stack[photo[:, None, None], rows, columns]  # (n, size, size, 3)
    return picked.transpose(0, 3, 1, 2)


def _place(
    ink: Floats, enlarge: Floats, turn: Floats, down: Floats, along: Floats, size: int
) -> Floats:
    """Enlarge digits (n, 8, 8) bilinearly, turn them, and move them to a random place.

    Returns:
        The digits on empty images, (n, size, size) in [0, 1].
    """
    side = size * _between(DIGIT_SIDE, enlarge)[:, None, None]  # pixels
    angle = np.deg2rad(_between((-MAX_ANGLE, MAX_ANGLE), turn))[:, None, None]
    cos, sin = np.round(np.cos(angle), 9), np.round(np.sin(angle), 9)
    grid = np.arange(size) + 0.5
    # From the digit's centre, in pixels of the image.
    y = grid[:, None] - ((size - side) * down[:, None, None] + side / 2)
    x = grid - ((size - side) * along[:, None, None] + side / 2)
    # In cells of the digit, where 0 is the centre of the first cell.
    cells = ink.shape[1]
    row = (cos * y + sin * x) * (cells / side) + (cells - 1) / 2
    column = (cos * x - sin * y) * (cells / side) + (cells - 1) / 2
    return _bilinear(ink, row, column)


def _bilinear(ink: Floats, row: Floats, column: Floats) -> Floats:
    """Interpolate ``ink`` (n, h, w) between its cells, at ``row`` and ``column`` (n, H, W).

    Outside of the cells it is 0.
    """
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    last = padded.shape[1] - 1
    row, column = np.clip(row + 1, 0, last), np.clip(column + 1, 0, last)
    top = np.minimum(row.astype(np.int64), last - 1)
    left = np.minimum(column.astype(np.int64), last - 1)
    down, along = row - top, column - left
    image: Ints = np.arange(len(ink))[:, None, None]
    upper = padded[image, top, left] * (1 - along) + padded[image, top, left + 1] * along
    lower = padded[image, top + 1, left] * (1 - along) + padded[image, top + 1, left + 1] * along
    result: Floats = upper * (1 - down) + lower * down
    return result


def _luminance(rgb: Floats) -> Floats:
    """Return the luminance (n,) of colours (n, 3)."""
    result: Floats = rgb[:, 0] * LUMINANCE[0] + rgb[:, 1] * LUMINANCE[1] + rgb[:, 2] * LUMINANCE[2]
    return result


def _colour(mean: Floats, gap: Floats, side: Floats, rgb: Floats) -> Floats:
    """Return random colours (n, 3), whose luminance differs from ``mean`` (n,) by a random gap."""
    distance = _between(LUMINANCE_GAP, gap)
    fits_above, fits_below = mean + distance <= 1, mean - distance >= 0
    above = np.where(fits_above & fits_below, side < 0.5, fits_above)
    target = np.where(above, mean + distance, mean - distance)[:, None]
    now = _luminance(rgb)[:, None]
    # Toward black and toward white, luminance moves linearly and the colour stays in the gamut.
    darker = rgb * (target / np.maximum(now, 1e-9))
    lighter = rgb + (1 - rgb) * ((target - now) / np.maximum(1 - now, 1e-9))
    result: NDArray[Any] = np.where(target < now, darker, lighter)
    return result
