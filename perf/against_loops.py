"""Time AR, OPS and EM's noise step against the published algorithms, written as loops.

    python perf/against_loops.py [--images 50000] [--loop-images 200] [--rounds 3]

The published algorithms loop over pixels, colours and batches. Both kinds take turns in one process
with one thread. A loop poisons fewer images; the script compares seconds an image. For AR neither
side counts the search for kernels. For OPS the loop's work is a class's images at each position and
colour, so that its seconds an image do not depend on how many there are once there are many; with
few images they are higher, hence ``--loop-images``. EM's noise turn (surrogate ``resnet10_w16``)
stands against a DataLoader of images that are converted one by one, in batches of 512, with a
backward pass to the weights too; both take the same images and steps.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from _common import machine, median, print_table, random_images, seconds, verdict
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from attacks._ar_kernels import MARGIN, TILE, signal_map
from attacks._min_min import MinMin
from attacks.ar import AR
from attacks.em import NOISE_BATCH
from attacks.ops import OPS
from benchmark import Context, ImageSet
from benchmark.running.deterministic import set_up_torch
from benchmark.training.gradients import frozen
from benchmark.training.train import build_victim

EM_IMAGES, EM_STEPS = 1024, 3
EPS, STEP = 8 / 255, 0.8 / 255


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--images", type=int, default=50_000)
    options.add_argument(
        "--loop-images", type=int, default=200, help="for AR; OPS takes ten times as many"
    )
    options.add_argument("--rounds", type=int, default=3)
    return options


def ar_loop(kernels: np.ndarray, count: int) -> None:
    """Make the noise of ``count`` images, pixel after pixel."""
    rng = np.random.default_rng(0)
    for image in range(count):
        kernel = kernels[image % len(kernels)]
        signal = rng.standard_normal((3, TILE + MARGIN, TILE + MARGIN))
        for i in range(TILE + MARGIN - 2):
            for j in range(TILE + MARGIN - 2):
                signal[:, i + 2, j + 2] = (kernel * signal[:, i : i + 3, j : j + 3]).sum((1, 2))
        kept = signal[:, MARGIN:, MARGIN:]
        kept /= np.linalg.norm(kept)


def ops_loop(data: ImageSet) -> None:
    """Score every position and colour, one after another, and find the largest, class by class."""
    for label in range(data.info.num_classes):
        images = data.x[data.y == label].numpy() / 255
        scores = np.zeros((data.info.height, data.info.width, 8))
        for i in range(data.info.height):
            for j in range(data.info.width):
                for index in range(8):
                    distance = np.abs(
                        np.array([index >> 2, index >> 1 & 1, index & 1]) - images[:, :, i, j]
                    )
                    scores[i, j, index] = distance.mean() / (distance.std() + 1e-12)
        scores.argmax()


def em_turn(data: ImageSet) -> None:
    """Take the noise turn of the attack."""
    game = MinMin(
        data,
        Context(),
        surrogate="resnet10_w16",
        by_class=False,
        eps=EPS,
        lr=0.1,
        weight_decay=5e-4,
        chunk=NOISE_BATCH,
    )
    with frozen(game.seen):
        game.sample_turn(EM_STEPS, STEP)


def em_loop(data: ImageSet) -> None:
    """Take the same turn as the release does."""
    arrays = data.x.permute(0, 2, 3, 1).numpy()
    loader = DataLoader(
        [(to_tensor(array), int(label)) for array, label in zip(arrays, data.y, strict=True)],
        batch_size=512,
    )
    model = (
        build_victim("resnet10_w16", data.info, 0).to(memory_format=torch.contiguous_format).eval()
    )
    noise = torch.zeros_like(data.x, dtype=torch.float32)
    start = 0
    for x, y in loader:
        part = slice(start, start + len(x))
        moved = x + noise[part]
        for _ in range(EM_STEPS):
            moved = moved.detach().requires_grad_(True)
            model.zero_grad()
            F.cross_entropy(model(moved), y).backward()  # type: ignore[no-untyped-call]
            assert moved.grad is not None
            noise[part] = (moved.detach() - STEP * moved.grad.sign() - x).clamp(-EPS, EPS)
            moved = (x + noise[part]).clamp(0, 1)
        start = part.stop


def main() -> None:
    """Print one row a method."""
    options = parser().parse_args()
    set_up_torch()
    data, ctx = random_images(options.images), Context()
    few, some = random_images(10 * options.loop_images), random_images(EM_IMAGES)
    kernels = AR().kernels(data.info, ctx)

    def ar_noise() -> None:
        generator = torch.Generator().manual_seed(0)
        for kernel in kernels:
            process = signal_map(kernel, TILE)
            for start in range(0, options.images // len(kernels), 2000):
                AR().noise(
                    data.info, process, min(2000, options.images // len(kernels) - start), generator
                )

    rounds = [
        (
            seconds(ar_noise) / options.images,
            seconds(lambda: ar_loop(kernels.numpy(), options.loop_images)) / options.loop_images,
            seconds(lambda: OPS().poison(data, ctx)) / options.images,
            seconds(lambda: ops_loop(few)) / len(few),
            seconds(lambda: em_turn(some)) / len(some),
            seconds(lambda: em_loop(some)) / len(some),
        )
        for _ in range(options.rounds)
    ]
    ar, ar_naive, ops, ops_naive, em, em_naive = (
        median([row[i] for row in rounds]) for i in range(6)
    )
    rows = [
        ("ar", ar * 1e6, ar_naive * 1e6, ar_naive / ar, verdict(ar_naive / ar, 20, at_most=False)),
        (
            "ops",
            ops * 1e6,
            ops_naive * 1e6,
            ops_naive / ops,
            verdict(ops_naive / ops, 50, at_most=False),
        ),
        (
            "em, noise turn",
            em * 1e6,
            em_naive * 1e6,
            em_naive / em,
            verdict(em_naive / em, 1.5, at_most=False),
        ),
    ]
    print_table(
        f"microseconds an image; {machine()}", ("attack", "ours", "loop", "ratio", "target"), rows
    )


if __name__ == "__main__":
    main()
