"""Autoregressive processes: how they run, how they are compared, and the search for kernels.

Source: Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, Jacobs, "Autoregressive
Perturbations for Data Poisoning", NeurIPS 2022, arXiv:2206.03693. The search accepts a kernel by
the rule of the authors' code. ``perf/ar_kernels.py`` writes the kernels that uebench ships.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark import Context

SHIPPED = Path(__file__).with_name("_ar_kernels.json")
TILE = 32  # pixels; the largest square that one process fills
MARGIN = 4  # rows and columns that are cut off, the two random ones among them
SIDE = TILE + MARGIN
TRIALS = 3  # signals that a kernel must keep short; the response is measured on the last one
LONGEST = 50.0  # L2 of a trial signal
TRIES = 1_000_000  # kernels, as in the release
CANDIDATES = 1024  # kernels tried at once; the result does not depend on it
CORNERS = (12, 20, SIDE)  # pixels; the search drops a signal once it is too long in a corner


@dataclass(frozen=True)
class Found:
    """Kernels in the order in which the search accepted them.

    Attributes:
        candidates: how many kernels the search had tried before each, (K,).
        kernels: float64 (K, C, 3, 3); the last entry of a 3x3 kernel is 0, the others sum to 1.
    """

    candidates: tuple[int, ...]
    kernels: Tensor


@cache
def shipped() -> Found:
    """The first hundred kernels of seed 0, for three channels."""
    data = json.loads(SHIPPED.read_text(encoding="utf-8"))
    kernels = torch.tensor(data["kernels"], dtype=torch.float64).view(-1, 3, 3, 3)
    return Found(tuple(data["candidates"]), kernels)


def required_response(place: int) -> float:
    """The least response asked of the kernel that comes after ``place`` others.

    The release asks for 10 in a set of ten kernels and for 3 in a set of a hundred.
    """
    return 10.0 if place < 10 else 3.0


def search(
    count: int,
    channels: int = 3,
    seed: int = 0,
    least: float = 0.0,
    progress: Callable[[int, int], None] = lambda found, tried: None,
) -> Found:
    """Find kernels whose signals stay short and that differ from each other.

    The search accepts a kernel if its trial signals are at most ``LONGEST`` long, and if every
    filter accepted before responds to the last of them, scaled to length 1, with ``least`` or more.
    More kernels begin with the same ones as fewer.

    Args:
        least: 0 means ``required_response``.
        progress: called with the numbers of kernels found and tried.

    Raises:
        ValueError: if ``TRIES`` kernels do not suffice.
    """
    ctx = Context(seed_axes=("ar kernels", seed))  # one set for all data sets, as in the release
    stream = ctx.generator("candidates")
    candidates: list[int] = []
    accepted = torch.empty(0, channels, 3, 3, dtype=torch.float64)
    for tried in range(0, TRIES, CANDIDATES):
        progress(len(candidates), tried)
        kernels, cells = draw(CANDIDATES, channels, stream)
        for index, signal in last_trials(kernels, cells):
            wanted = least or required_response(len(candidates))
            if candidates and float(responses(signal[None], accepted).min()) < wanted:
                continue
            generator = ctx.generator(f"other trials of {tried + index}")
            shape = (TRIALS - 1, *cells.shape[1:])
            others = torch.randn(shape, dtype=torch.float64, generator=generator)
            if not bool((lengths(run(kernels[index], start(others))) <= LONGEST).all()):
                continue
            candidates.append(tried + index)
            accepted = torch.cat([accepted, kernels[index, None]])
            if len(candidates) == count:
                return Found(tuple(candidates), accepted)
    raise ValueError(
        f"found {len(candidates)} of {count} processes whose responses differ by"
        f" {wanted:g} among {TRIES} tries; lower response or take another kernels_seed"
    )


def draw(count: int, channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw kernels, float64 (count, C, 3, 3), and the cells that their last trials start from.

    A row of numbers makes one candidate. Its length is a multiple of 16, because torch then draws
    the same rows one by one and many at once.
    """
    used = channels * (9 + len(free_cells(SIDE)))
    rows = torch.randn(count, -(-used // 16) * 16, dtype=torch.float64, generator=generator)
    kernels = rows[:, : 9 * channels].reshape(count, channels, 3, 3)
    kernels[..., 2, 2] = 0
    kernels /= kernels.sum((-2, -1), keepdim=True)
    return kernels, rows[:, 9 * channels : used].view(count, channels, -1)


def last_trials(kernels: Tensor, cells: Tensor) -> list[tuple[int, Tensor]]:
    """Indices of the kernels whose last trial is short enough, each with that trial at length 1."""
    index = torch.arange(len(kernels))
    for side in CORNERS:
        signals = run(kernels[index], start(cells[index], side))
        length = lengths(signals)
        short = length <= LONGEST  # not so for NaN, where a signal overflowed
        index, signals, length = index[short], signals[short], length[short]
    return list(zip(index.tolist(), signals / length[:, None, None, None], strict=True))


def free_cells(side: int) -> Tensor:
    """Row and column of the cells that a process starts from, int64 (cells, 2)."""
    free = torch.ones(side, side, dtype=torch.bool)
    free[2:, 2:] = False
    return free.nonzero()


def start(cells: Tensor, side: int = SIDE) -> Tensor:
    """Lay out starting cells, (..., cells) of a whole signal, in its corner (..., side, side)."""
    whole = free_cells(SIDE)
    inside = (whole < side).all(1)
    row, column = whole[inside].T
    out = cells.new_zeros(*cells.shape[:-1], side, side)
    out[..., row, column] = cells[..., inside]
    return out


def run(kernels: Tensor, start: Tensor) -> Tensor:
    """Run processes: a cell becomes the kernel's sum over the 3x3 cells that end there.

    The first two rows and columns stay as they are.

    Args:
        kernels: float64 (..., 3, 3), broadcast against ``start``; the last entry is not used.
        start: float64 (..., H, W); only its first two rows and columns count.

    Returns:
        The signal without its first ``MARGIN`` rows and columns.
    """
    height, width = start.shape[-2:]
    row, column = torch.arange(height)[:, None], torch.arange(width)
    # A diagonal's cells do not depend on each other. A diagonal is a row of ``skew``, so that
    # neighbours are slices; processes come last, so that the slices are contiguous.
    weights = kernels.movedim((-2, -1), (0, 1)).contiguous()
    skew = start.new_zeros(height + width - 1, height, *start.shape[:-2])
    skew[row + column, row] = start.movedim((-2, -1), (0, 1))
    for diagonal in range(4, height + width - 1):
        first, end = max(2, diagonal - width + 1), min(height, diagonal - 1)
        total = skew[diagonal, first:end].zero_()
        for a in range(3):
            for b in range(3):
                if (a, b) != (2, 2):
                    cells = skew[diagonal - 4 + a + b, first - 2 + a : end - 2 + a]
                    total.addcmul_(weights[a, b], cells)
    signal: Tensor = skew[row + column, row][MARGIN:, MARGIN:]
    return signal.movedim((0, 1), (-2, -1))


def signal_map(kernel: Tensor, side: int) -> Tensor:
    """The linear map from the starting cells of a process to its signal.

    Args:
        kernel: float64 (C, 3, 3).

    Returns:
        float64 (C, cells, side * side).
    """
    row, column = free_cells(side + MARGIN).T
    unit = torch.zeros(len(row), side + MARGIN, side + MARGIN, dtype=torch.float64)
    unit[torch.arange(len(row)), row, column] = 1
    return run(kernel[:, None], unit.expand(len(kernel), -1, -1, -1)).flatten(2)


def lengths(signals: Tensor) -> Tensor:
    """L2 of signals (N, C, H, W), over their channels together, (N,)."""
    length: Tensor = signals.flatten(1).norm(dim=1)
    return length


def responses(signals: Tensor, kernels: Tensor) -> Tensor:
    """Summed positive responses of signals to filters, (N, K).

    A process' filter is its kernel with -1 as the last entry, to which the process itself answers
    with 0. A response is a convolution's, summed over the channels before the positive part.

    Args:
        signals: (N, C, H, W).
        kernels: of the same type, (K, C, 3, 3).
    """
    filters = kernels.clone()
    filters[..., 2, 2] = -1
    return F.conv2d(signals, filters).relu().sum((2, 3))
