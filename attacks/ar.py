"""Autoregressive perturbations: each pixel of the noise is a fixed linear function of its neighbours above and to the left.

Source: Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, Jacobs, "Autoregressive Perturbations for Data Poisoning",
NeurIPS 2022, arXiv:2206.03693. A class has one process, a 3x3 kernel for each channel; its images differ in the random cells
that the process starts from.

Departures:
- The process is linear in its starting cells, so the noise is one matrix product an image. The matrix is made once a class by
  running the process on unit vectors along anti-diagonals, whose cells do not depend on each other. The release visits pixel
  after pixel.
- Images are rounded to nearest; noise that rounding makes more than 0.9 % longer than the budget is shortened by 1 % at a time.
- Kernels are our own. They are searched for as in the release, but all three trial signals must pass, not the last alone, and
  so must the root mean square length that a kernel's signals have, which is exact. The released kernels for 100 classes hold
  one whose signals overflow (issue 3 of the release).
- Images with a side above 32 pixels are tiled: processes whose kernels sum to 1 are unstable, and on 224 pixels most would
  put nearly all of their energy into one corner. The release has no such sets but STL-10 and gives no result for ImageNet.
- ``eps`` is the L2 budget at 3x32x32 and grows with the square root of the image's size: 3.0 at 96 pixels, as released, and
  7.0 at 224, where nothing is published.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from attacks._l2 import rounded_within
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import at_once, chunks, to_float

TILE = 32  # pixels; the largest square that one process fills
MARGIN = 4  # rows and columns that the process fills and that are cut off, the two random ones among them
TRIALS = 3
CANDIDATES = 256  # kernels tried at once
TRIES = 51_200  # kernels; ten classes need about a thousand, a hundred classes about ten thousand
SEARCH = 0.3  # share of the time that the search for kernels takes, for the progress
LONGEST = 50.0  # L2 of an unscaled signal


@attack(version=2, cite="arXiv:2206.03693", norm="l2")
class AR(Attack):
    """Add noise that an autoregressive process of the image's class has drawn.

    Parameters:
        eps: L2 budget of an image of 3x32x32, in [0, 1] units; other sizes in proportion to the root of their size.
        response: how strongly two processes differ at least: the summed positive response of one's signal to the other's filter. 0
            means 10 for up to ten classes and 3 for more.
    """

    eps: Annotated[float, Interval(ge=0.5, le=4)] = 1.0
    response: Annotated[float, Interval(ge=0, le=100)] = 0.0

    def budget(self, info: DatasetInfo) -> float:
        return self.eps * math.sqrt(info.size / 3072)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        kernels = self.kernels(data.info, ctx)
        out = torch.empty_like(data.x)
        for label, kernel in enumerate(kernels):
            members = (data.y == label).nonzero().flatten()
            generator = ctx.generator(f"class {label}")
            process = signal_map(kernel, TILE)
            count = max(
                4, at_once(data.x) // 4 * 4
            )  # fours draw whole runs of torch's 16, so parts draw as the whole
            for part in chunks(len(members), count):
                noise = self.noise(data.info, process, len(members[part]), generator)
                out[members[part]] = rounded_within(
                    to_float(data.x[members[part]]), noise, self.budget(data.info)
                )
            ctx.progress(
                SEARCH + (1 - SEARCH) * (label + 1) / len(kernels),
                f"class {label + 1} of {len(kernels)}",
            )
        return data.with_x(out)

    def noise(
        self, info: DatasetInfo, process: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """``count`` draws of one class, float32 (count, C, H, W), each of the length of the budget.

        Args:
            process: of ``signal_map``.
        """
        down, across = -(-info.height // TILE), -(-info.width // TILE)
        start = torch.randn(
            count, info.channels, down * across, process.shape[1], generator=generator
        )
        tiles = torch.einsum("nctf,cfp->nctp", start, process.float())
        whole = (
            tiles.view(count, info.channels, down, across, TILE, TILE)
            .transpose(3, 4)
            .reshape(count, info.channels, down * TILE, -1)
        )
        noise = whole[:, :, : info.height, : info.width]
        length: Tensor = noise.flatten(1).norm(dim=1)
        return noise * (self.budget(info) / length)[:, None, None, None]

    def kernels(self, info: DatasetInfo, ctx: Context) -> Tensor:
        """A process for each class, float64 (num_classes, C, 3, 3); the last entry of a kernel is 0 and the others sum to 1.

        Raises:
            ValueError: if no processes are found that differ enough.
        """
        wanted = self.response or (10.0 if info.num_classes <= 10 else 3.0)
        generator = ctx.generator("kernels")
        found: list[Tensor] = []
        for tried in range(0, TRIES, CANDIDATES):
            ctx.progress(
                SEARCH * len(found) / info.num_classes,
                f"{len(found)} of {info.num_classes} processes found, {tried:,} tried",
            )
            kernels = torch.randn(
                CANDIDATES, info.channels, 3, 3, dtype=torch.float64, generator=generator
            )
            kernels[..., 2, 2] = 0
            kernels /= kernels.sum((-2, -1), keepdim=True)
            shape = (TRIALS, CANDIDATES, info.channels, TILE + MARGIN, TILE + MARGIN)
            starts = torch.randn(shape, dtype=torch.float64, generator=generator)
            short = _short(run(kernels, starts[0]))  # most fail already in the first trial
            kernels, signals = kernels[short], run(kernels[short], starts[:, short])
            for kernel, signal in zip(kernels, signals.transpose(0, 1), strict=True):
                if not _short(signal).all() or signal_map(kernel, TILE).norm() > LONGEST:
                    continue
                if all(float(response(signal, other).min()) >= wanted for other in found):
                    found.append(kernel)
                    if len(found) == info.num_classes:
                        return torch.stack(found)
        raise ValueError(
            f"found {len(found)} of {info.num_classes} processes whose responses differ by {wanted:g} among {TRIES} tries; lower response"
        )


def run(kernels: Tensor, start: Tensor) -> Tensor:
    """Runs processes: every cell but those of the first two rows and columns becomes the kernel's sum over the 3x3 cells that end there.

    Args:
        kernels: float64 (..., 3, 3), broadcast against ``start``; the last entry is not used.
        start: float64 (..., H, W), of which the first two rows and columns count.

    Returns:
        The signal without its first ``MARGIN`` rows and columns.
    """
    height, width = start.shape[-2:]
    row, column = torch.arange(height)[:, None], torch.arange(width)
    skew = start.new_zeros(
        *start.shape[:-2], height + width - 1, height
    )  # a diagonal a row, so that neighbours are slices
    skew[..., row + column, row] = start
    for diagonal in range(4, height + width - 1):
        first, end = max(2, diagonal - width + 1), min(height, diagonal - 1)
        total = torch.zeros_like(skew[..., diagonal, first:end])
        for a in range(3):
            for b in range(3):
                if (a, b) != (2, 2):
                    total += (
                        kernels[..., a, b, None]
                        * skew[..., diagonal - 4 + a + b, first - 2 + a : end - 2 + a]
                    )
        skew[..., diagonal, first:end] = total
    signal: Tensor = skew[..., row + column, row][..., MARGIN:, MARGIN:]
    return signal


def _short(signals: Tensor) -> Tensor:
    """Which signals (N, C, H, W) are no longer than they may be; NaN is not."""
    length: Tensor = signals.flatten(1).norm(dim=1)
    return length <= LONGEST


def signal_map(kernel: Tensor, side: int) -> Tensor:
    """The linear map from the starting cells of a process to its signal, float64 (C, cells, side * side).

    Its norm is the root mean square length of a signal whose starting cells are standard normal.

    Args:
        kernel: float64 (C, 3, 3).
    """
    full = side + MARGIN
    free = torch.ones(full, full, dtype=torch.bool)
    free[2:, 2:] = False
    where = free.nonzero()
    unit = torch.zeros(len(where), full, full, dtype=torch.float64)
    unit[torch.arange(len(where)), where[:, 0], where[:, 1]] = 1
    return run(kernel[:, None], unit.expand(len(kernel), -1, -1, -1)).flatten(2)


def response(signals: Tensor, kernel: Tensor) -> Tensor:
    """Summed positive response of signals to the filter that a process answers with 0, float64 (N,).

    Args:
        signals: float64 (N, C, H, W).
        kernel: float64 (C, 3, 3).
    """
    filters = kernel.clone()
    filters[:, 2, 2] = -1
    return F.conv2d(signals, filters[:, None], groups=len(filters)).relu().flatten(1).sum(1)
