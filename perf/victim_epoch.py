"""Time an epoch of ``fit`` against bare training steps on random tensors of the same shape.

    python perf/victim_epoch.py [--images 10000] [--pairs 5] [--precision auto] [--threads 1]

A bare step is forward, backward and optimiser step. It has the same network, optimiser, batch size,
memory format and precision as ``fit``; it draws no batch, clips no gradient and reports nothing.
Epochs of both kinds take turns in one process, so that a change of the processor's clock affects
both. The script times the loader and the clipping alone too, to show where a difference comes from.
Nothing else should be running.
"""

from __future__ import annotations

import argparse
import time

import torch
from _common import machine, median, print_table, random_images, seconds, verdict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import Context, ImageSet
from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.running.deterministic import set_up_torch
from benchmark.running.hardware import native_precision
from benchmark.training.loader import Batches
from benchmark.training.train import build_victim, fit

TARGET = 1.1
POOL = 8  # random batches that the bare steps go through in turn


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument(
        "--pairs", type=int, default=5, help="epochs of each kind; one more of each warms up"
    )
    options.add_argument("--victim", default="resnet10_w16")
    options.add_argument("--protocol", default="lite")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options.add_argument("--threads", type=int, default=1)
    return options


class Bare:
    """Training steps with nothing around them."""

    def __init__(self, victim: str, protocol: Protocol, data: ImageSet, ctx: Context) -> None:
        self.ctx = ctx
        self.model = build_victim(victim, data.info, 0).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            1e-3,
            protocol.momentum,
            weight_decay=protocol.weight_decay,
            nesterov=protocol.nesterov,
            foreach=True,
        )
        generator = torch.Generator().manual_seed(1)
        shape = (
            min(protocol.batch_size, len(data)),
            data.info.height,
            data.info.width,
            data.info.channels,
        )
        # channels last
        self.x = [torch.rand(shape, generator=generator).permute(0, 3, 1, 2) for _ in range(POOL)]
        self.y = [
            torch.randint(data.info.num_classes, shape[:1], generator=generator)
            for _ in range(POOL)
        ]

    def epoch(self, steps: int) -> None:
        for number in range(steps):
            self.step(self.x[number % POOL], self.y[number % POOL])

    def step(self, x: Tensor, y: Tensor) -> None:
        with self.ctx.autocast():
            logits = self.model(x)
        loss = F.cross_entropy(logits.float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def take_turns(
    victim: str, protocol: Protocol, data: ImageSet, ctx: Context, bare: Bare, steps: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each epoch of ``fit`` and of each bare epoch but the first."""
    fitted: list[float] = []
    bared: list[float] = []
    start = time.perf_counter()

    def after_epoch(epoch: int, model: nn.Module) -> None:
        nonlocal start
        fitted.append(time.perf_counter() - start)
        bared.append(seconds(lambda: bare.epoch(steps)))
        start = time.perf_counter()

    fit(victim, protocol, data, ctx, after_epoch=after_epoch)
    return fitted[1:], bared[1:]


def main() -> None:
    options = parser().parse_args()
    set_up_torch(options.threads)
    precision = native_precision("cpu") if options.precision == "auto" else options.precision
    ctx = Context(seed_axes=("perf",), precision=precision, on_progress=lambda share, note: None)
    data = random_images(options.images)
    protocol = get_protocol(options.protocol).with_values({"epochs": options.pairs + 1})
    batches = Batches(
        data,
        protocol.batch_size,
        ctx.device,
        ctx.generator("alone"),
        protocol.crop,
        protocol.flip,
        drop_last=True,
    )
    steps = len(batches)
    bare = Bare(options.victim, protocol, data, ctx)
    fitted, bared = take_turns(options.victim, protocol, data, ctx, bare, steps)
    ratio = median([one / other for one, other in zip(fitted, bared, strict=True)])
    loader = seconds(lambda: [None for _ in batches])
    weights = list(bare.model.parameters())
    clip = seconds(lambda: [nn.utils.clip_grad_norm_(weights, protocol.clip) for _ in range(steps)])
    base = median(bared)
    print_table(
        f"{options.victim}, protocol {protocol.name}, {len(data):,} images, batch "
        f"{batches.batch_size}, {precision}, "
        f"{options.threads} thread(s); {machine()}",
        ("", "s an epoch", "ms a step", "of bare", ""),
        [
            ("fit", median(fitted), 1000 * median(fitted) / steps, ratio, verdict(ratio, TARGET)),
            ("bare steps", base, 1000 * base / steps, 1.0, ""),
            ("loader alone", loader, 1000 * loader / steps, loader / base, ""),
            ("clipping alone", clip, 1000 * clip / steps, clip / base, ""),
        ],
    )


if __name__ == "__main__":
    main()
