"""Time OPS, LSP and JPEG-10 on 50,000 images of 32x32 pixels and compare with the targets.

    python perf/ops_lsp_jpeg.py [--data FOLDER] [--images 50000] [--threads 2]

Without ``--data`` the images are smooth random ones, which code like photographs. With it, they are
the files of ``FOLDER/<class>/*``, decoded before the clock starts. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from attacks.lsp import LSP
from attacks.ops import OPS
from benchmark import Context, ImageSet
from benchmark.data import DatasetInfo, chunks, to_uint8
from benchmark.running.verify import verify_poison
from benchmark.training.images import jpeg

SIZE = 32


@dataclass(frozen=True)
class Timing:
    """One line of the table; times in seconds."""

    name: str
    seconds: float
    target: float


def smooth_images(n: int) -> ImageSet:
    """Make random fields of few frequencies with a little grain, in 10 classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(n, 3, SIZE, SIZE, dtype=torch.uint8)
    for part in chunks(n, 2048):
        count = part.stop - part.start
        coarse = F.interpolate(
            torch.rand(count, 3, 6, 6, generator=generator), size=(SIZE, SIZE), mode="bicubic"
        )
        x[part] = to_uint8(coarse + 0.03 * torch.randn(count, 3, SIZE, SIZE, generator=generator))
    return with_labels(x, torch.arange(n) % 10, tuple(map(str, range(10))))


def folder_images(folder: Path, n: int) -> ImageSet:
    """Read images of ``folder/<class>/*``, at most ``n`` in all and equally many a class.

    Raises:
        ValueError: if the folder holds no classes.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise ValueError(
            f"{folder} holds {len(classes)} class folders, expected at least 2: FOLDER/<class>/*"
        )
    files = [
        (file, label)
        for label, path in enumerate(classes)
        for file in sorted(path.iterdir())[: n // len(classes)]
    ]
    x = np.stack(
        [np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file, _ in files]
    )
    labels = torch.tensor([label for _, label in files])
    return with_labels(
        torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(),
        labels,
        tuple(path.name for path in classes),
    )


def with_labels(x: torch.Tensor, y: torch.Tensor, names: tuple[str, ...]) -> ImageSet:
    return ImageSet(x, y, DatasetInfo("perf", len(names), names, 3, SIZE, SIZE, hflip=True))


def timed(name: str, target: float, work: Callable[[], ImageSet]) -> tuple[Timing, ImageSet]:
    start = time.perf_counter()
    result = work()
    return Timing(name, time.perf_counter() - start, target), result


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument(
        "--data", type=Path, help="folder of class folders; smooth random images without it"
    )
    options.add_argument("--images", type=int, default=50_000)
    options.add_argument("--threads", type=int, default=2)
    return options


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    data = (
        folder_images(options.data, options.images)
        if options.data
        else smooth_images(options.images)
    )
    ctx = Context(workers=options.threads)
    scale = len(data) / 50_000
    timings = []
    for attack, target in ((OPS(), 3.0), (LSP(), 2.0)):
        timing, poisoned = timed(
            type(attack).__name__, target * scale, partial(attack.poison, data, ctx)
        )
        verify_poison(data, poisoned, attack)
        timings.append(timing)
    timings.append(
        timed("JPEG-10", 15.0 * scale, lambda: data.map(lambda x: jpeg(x, 10, ctx.workers)))[0]
    )
    print(
        f"{len(data)} images of {SIZE}x{SIZE}, {options.threads} threads, torch {torch.__version__}"
    )
    print(f"{'':10} {'seconds':>8} {'target':>8} {'images/s':>9}")
    for item in timings:
        mark = "" if item.seconds <= item.target else "  over"
        print(
            f"{item.name:10} {item.seconds:8.2f} {item.target:8.2f} "
            f"{len(data) / item.seconds:9.0f}{mark}"
        )
    print(
        "peak memory of the process: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
