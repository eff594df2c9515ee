"""Measure which share of a D-VAE training step goes into drawing the noise of its code.

    python perf/dvae_noise.py [--steps 10] [--sizes lite,published] [--threads 1]

The script times the draw where it happens, inside real training steps. It times a strided
``randn_like`` of the same shape too, which is what the obvious code would call. Sizes: ``lite`` as
in suites/cifar10-lite.yaml, ``published`` the defaults. One published step takes seconds on one
core. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from _common import SIZE, machine, median, print_table, random_images, verdict
from torch import Tensor

from benchmark import Context
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.planning.suite import load_suite
from benchmark.running.deterministic import set_up_torch
from benchmark.running.hardware import native_precision
from defenses._rate_vae import fit_network, seeded
from defenses.dvae import DVAE

TARGET = 0.05
WARM = 2  # first steps, which are not counted


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--steps", type=int, default=10, help="counted steps of each size")
    options.add_argument("--sizes", default="lite,published", help="comma-separated")
    options.add_argument(
        "--batch", type=int, default=0, help="images a step; 0 for each size's own"
    )
    options.add_argument("--threads", type=int, default=1)
    return options


def method(size: str, batch: int) -> DVAE:
    """Return the defense at one size.

    Raises:
        ValueError: for an unknown size.
    """
    registry = Registry()
    if size == "lite":
        defenses = load_suite("cifar10-lite", registry).defenses
        spec = next(defense for defense in defenses if defense.name == "dvae")
    elif size == "published":
        spec = registry.resolve("defense", Spec("dvae"))
    else:
        raise ValueError(f'unknown size "{size}"; expected lite or published')
    built: DVAE = registry.build(
        "defense",
        spec.with_params({**spec.params, "batch_size": batch or spec.params["batch_size"]}),
    )
    return built


@contextmanager
def timed_draws(into: list[float]) -> Iterator[None]:
    """Note the seconds of every ``torch.randn`` inside the block."""
    original = torch.randn

    def timed(*args: Any, **kwargs: Any) -> Tensor:
        start = time.perf_counter()
        out: Tensor = original(*args, **kwargs)
        into.append(time.perf_counter() - start)
        return out

    torch.randn = timed
    try:
        yield
    finally:
        torch.randn = original


def measure(dvae: DVAE, steps: int, ctx: Context) -> tuple[float, float]:
    """Return the median seconds of a step and of its draw.

    Raises:
        RuntimeError: if a step does not draw with ``torch.randn`` exactly once, so that
            this script would measure something else.
    """
    data = random_images((steps + WARM + 1) * dvae.batch_size)
    net = seeded(lambda: dvae.network(data.info), 0)
    generator = ctx.generator("noise")
    starts: list[float] = []
    draws: list[float] = []

    def loss(x: Tensor, y: Tensor, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        starts.append(time.perf_counter())
        with ctx.autocast():
            out = net(x, y, generator)
        return dvae.loss_terms(out, x, dvae.kd, epoch)

    with timed_draws(draws):
        fit_network(
            net,
            data,
            loss,
            ctx,
            stage="perf",
            epochs=1,
            batch_size=dvae.batch_size,
            lr=dvae.lr,
            clip=dvae.clip,
        )
    if len(draws) != len(starts):
        raise RuntimeError(
            f"{len(starts)} steps drew {len(draws)} times with torch.randn, expected once a step; "
            "adapt this script"
        )
    took = [
        after - before for before, after in zip(starts[WARM:], starts[WARM + 1 :], strict=False)
    ]
    return median(took), median(draws[WARM:-1])


def strided_draw(dvae: DVAE, repeats: int) -> float:
    """Return the median seconds of ``randn_like`` on a channels-last code of the method's shape."""
    code = torch.empty(dvae.batch_size, dvae.latent, SIZE // 2, SIZE // 2).to(
        memory_format=torch.channels_last
    )
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.randn_like(code)
        took.append(time.perf_counter() - start)
    return median(took)


def main() -> None:
    options = parser().parse_args()
    set_up_torch(options.threads)
    ctx = Context(seed_axes=("perf",), precision=native_precision("cpu"))
    rows = []
    for size in options.sizes.split(","):
        dvae = method(size.strip(), options.batch)
        step, draw = measure(dvae, options.steps, ctx)
        strided = strided_draw(dvae, options.steps)
        name = f"{size} (width {dvae.width}, latent {dvae.latent}, batch {dvae.batch_size})"
        rows.append(
            (
                name,
                1000 * step,
                1000 * draw,
                f"{draw / step:.1%}",
                1000 * strided,
                verdict(draw / step, TARGET),
            )
        )
    print_table(
        f"D-VAE steps on {SIZE}x{SIZE} images, {ctx.precision}, {options.threads} thread(s); "
        f"{machine()}",
        ("", "step ms", "noise ms", "share", "randn_like ms", ""),
        rows,
    )


if __name__ == "__main__":
    main()
