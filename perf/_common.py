"""Helpers of the measuring scripts: random images, wall times, medians and one table."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmark import ImageSet
from benchmark.data import DatasetInfo
from benchmark.running.hardware import cpuinfo

SIZE = 32


def random_images(n: int, size: int = SIZE, classes: int = 10) -> ImageSet:
    """Make random bytes, uint8 (n, 3, size, size), in equal classes.

    Mirroring is allowed, so that every augmentation runs.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    info = DatasetInfo("perf", classes, tuple(map(str, range(classes))), 3, size, size, hflip=True)
    return ImageSet(x, torch.arange(n) % classes, info)


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio of each pair of uint8 images in dB, float64 (N,)."""
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)


def median(values: Sequence[float]) -> float:
    """Return the median.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("nothing was measured; ask for more rounds or more images")
    return statistics.median(values)


def verdict(value: float, target: float, at_most: bool = True) -> str:
    """Return ``ok`` or ``missed``, with the target."""
    good = value <= target if at_most else value >= target
    return f"{'ok' if good else 'missed'} (target {'<=' if at_most else '>='} {target:g})"


def machine() -> str:
    """Return processor, versions and system, for the line above a table."""
    name = cpuinfo().get("model name") or platform.machine()
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one table.

    The first column is aligned left and the others right; floats have three digits after the point.
    """
    texts = [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in rows
    ]
    widths = [
        max(len(row[column]) for row in [list(header), *texts]) for column in range(len(header))
    ]
    print(title)
    for row in [list(header), *texts]:
        first, *others = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
