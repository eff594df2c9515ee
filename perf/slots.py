"""Compare two one-thread processes with one process of two threads, in images trained a second.

    python perf/slots.py [--images 10000] [--rounds 5] [--slots 2]

Each process runs ``fit``. After a warming epoch it trains one epoch whenever it is told to. The
single process and the group of one-thread processes take turns; the others sleep meanwhile. Nothing
else should be running.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TARGET = 1.5
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--images", type=int, default=10_000, help="a process")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--slots",
        type=int,
        default=2,
        help="one-thread processes, and threads of the single process",
    )
    options.add_argument("--victim", default="resnet10_w16")
    options.add_argument("--protocol", default="lite")
    options.add_argument("--worker", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    return options


class Trainer:
    """A process that trains one epoch for each line on its standard input."""

    def __init__(self, threads: int, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *arguments, "--worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def await_epoch(self) -> int:
        """Wait for the end of an epoch; return the number of images it trained."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"a training process ended early with exit code {self.process.wait()}; its "
                "message stands above"
            )
        return int(line)


def train_on_demand(threads: int, options: argparse.Namespace) -> None:
    """Train one epoch for each line read, and print how many images it trained."""
    from _common import random_images
    from torch import nn

    from benchmark import Context
    from benchmark.catalogue.protocol import get_protocol
    from benchmark.running.deterministic import set_up_torch
    from benchmark.running.hardware import native_precision
    from benchmark.training.train import fit

    set_up_torch(threads)
    data = random_images(options.images)
    protocol = get_protocol(options.protocol).with_values({"epochs": options.rounds + 1})
    size = min(protocol.batch_size, len(data))

    def after_epoch(epoch: int, model: nn.Module) -> None:
        print(len(data) // size * size, flush=True)
        if sys.stdin.readline().strip() != "go":
            raise SystemExit  # before the evaluation that ends a fit

    fit(
        options.victim,
        protocol,
        data,
        Context(seed_axes=("perf",), precision=native_precision("cpu")),
        after_epoch=after_epoch,
    )


def images_a_second(trainers: Sequence[Trainer]) -> float:
    start = time.perf_counter()
    for trainer in trainers:
        trainer.tell("go")
    images = sum(trainer.await_epoch() for trainer in trainers)
    return images / (time.perf_counter() - start)


def main() -> None:
    options = parser().parse_args()
    if options.worker is not None:
        train_on_demand(options.worker, options)
        return
    from _common import machine, median, print_table, verdict

    arguments = [
        f"--{name}={getattr(options, name)}" for name in ("images", "rounds", "victim", "protocol")
    ]
    one = [Trainer(options.slots, arguments)]
    many = [Trainer(1, arguments) for _ in range(options.slots)]
    for trainer in (*one, *many):
        trainer.await_epoch()
    pairs = [(images_a_second(one), images_a_second(many)) for _ in range(options.rounds)]
    for trainer in (*one, *many):
        trainer.tell("stop")
        trainer.process.wait()
    ratio = median([second / first for first, second in pairs])
    print_table(
        f"{options.victim}, protocol {options.protocol}, {options.images:,} images a process; "
        f"{machine()}",
        ("", "images/s", "ratio", ""),
        [
            (f"1 process, {options.slots} threads", median([first for first, _ in pairs]), 1.0, ""),
            (
                f"{options.slots} processes, 1 thread each",
                median([second for _, second in pairs]),
                ratio,
                verdict(ratio, TARGET, at_most=False),
            ),
        ],
    )


if __name__ == "__main__":
    main()
