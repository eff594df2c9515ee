"""Time a victim's training step with pooled shortcuts against one with strided slices, by turns.

    python perf/victim_step.py [--victim resnet8_w16_s2] [--batch-size 64] [--precision auto]
        [--threads 1] [--steps 10] [--rounds 15]

A shortcut of stride 2 leaves out pixels. ``Pointwise`` in ``benchmark/victims/_resnet.py`` does it
by pooling, whose gradient stays in channels-last memory. The baseline ``x[:, :, ::2, ::2]`` hands
its gradient back in NCHW memory, which slows the rest of the backward pass down. Both networks
start from the same weights and take the same batches in one process. They take turns, a block of
steps each, so that a change of the processor's clock affects both. At the end the script compares
their weights and exits with 1 unless they are equal bit for bit. ``--rounds 4`` is enough for that
check, also with a processor's older instructions:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python perf/victim_step.py --rounds 4
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Sequence
from functools import partial

import torch
from _common import machine, median, print_table, random_images, seconds
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import Context
from benchmark.catalogue.protocol import get_protocol
from benchmark.running.deterministic import set_up_torch
from benchmark.running.hardware import native_precision
from benchmark.training.loader import Batches
from benchmark.training.train import build_victim
from benchmark.victims._resnet import Pointwise

WARM_UP = 1  # rounds that are not counted


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--victim", default="resnet8_w16_s2")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--steps", type=int, default=10, help="steps of one block")
    options.add_argument("--rounds", type=int, default=15, help="blocks of each network")
    return options


class Sliced(Pointwise):
    """Pick the same pixels by a strided slice: the baseline."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn float (B, C, H, W) into float (B, K, ceil(H / stride), ceil(W / stride))."""
        return nn.Conv2d.forward(self, x[:, :, :: self.step, :: self.step])


def with_slices(model: nn.Module) -> nn.Module:
    """Copy a network, with shortcuts that take strided slices."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, Pointwise):
            module.__class__ = Sliced
    return copied


class Training:
    """A network and its optimiser, which take one step a batch as ``fit`` does."""

    def __init__(self, model: nn.Module, ctx: Context) -> None:
        protocol = get_protocol("lite")
        self.model, self.ctx, self.clip = model.train(), ctx, protocol.clip
        self.weights = list(model.parameters())
        self.optimizer = torch.optim.SGD(
            self.weights,
            0.01,
            protocol.momentum,
            weight_decay=protocol.weight_decay,
            nesterov=protocol.nesterov,
            fused=True,
        )

    def steps(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take one step a batch: images float (B, C, H, W) in [0, 1], labels int64 (B,)."""
        for x, y in batches:
            with self.ctx.autocast():
                logits = self.model(x)
            loss = F.cross_entropy(logits.float(), y)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.weights, self.clip)
            self.optimizer.step()


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Say whether both networks hold the same weights and buffers, bit for bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def main() -> int:
    """Print the table; return 1 if the weights differ."""
    options = parser().parse_args()
    set_up_torch(options.threads)
    precision = native_precision("cpu") if options.precision == "auto" else options.precision
    ctx = Context(seed_axes=("perf",), precision=precision)
    data = random_images(options.steps * options.batch_size)
    model = build_victim(options.victim, data.info, 0)
    pooled, sliced = Training(model, ctx), Training(with_slices(model), ctx)
    loader = Batches(data, options.batch_size, ctx.device, ctx.generator("batches"), 4, True)
    times: dict[str, list[float]] = {"pooled": [], "sliced": []}
    for _ in range(WARM_UP + options.rounds):
        batches = [(x, y) for x, y, _ in loader]
        for name, training in (("pooled", pooled), ("sliced", sliced)):
            taken = seconds(partial(training.steps, batches))
            times[name].append(1000 * taken / len(batches))
    new, old = times["pooled"][WARM_UP:], times["sliced"][WARM_UP:]
    ratios = [before / after for before, after in zip(old, new, strict=True)]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    same = equal(pooled.model, sliced.model)
    print_table(
        f"{options.victim}, batch {options.batch_size}, {precision}, {options.threads} thread(s), "
        f"{options.rounds} blocks of {options.steps} steps; "
        f"{torch.backends.cpu.get_cpu_capability()}, {machine()}",
        ("", "ms a step", "fastest", "slowest"),
        [("sliced", median(old), min(old), max(old)), ("pooled", median(new), min(new), max(new))],
    )
    print(
        f"sliced / pooled: {median(ratios):.3f} (middle half {quarters[0]:.3f} to "
        f"{quarters[2]:.3f}, all {min(ratios):.3f} to {max(ratios):.3f}); "
        f"weights {'equal' if same else 'DIFFER'}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
