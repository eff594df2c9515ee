"""Compare wall and CPU seconds of one stage's work, alone and beside busy processes.

    python perf/neighbours.py [--rounds 3] [--neighbours 4]

The work is a fit of the plain ``vae`` of ``quick`` to random images. It runs alone and beside the
neighbours by turns. Cost counts CPU seconds, which should agree; wall seconds count the neighbours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch
from _common import machine, median, print_table, random_images, verdict

from benchmark import Context
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.running.clock import Clock
from benchmark.running.deterministic import set_up_torch

TARGET = 1.10
BUSY = "while True: pass"
SETTINGS = {"width": 8, "decoder_width": 16, "latent": 32, "epochs": 1, "batch_size": 32}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--neighbours", type=int, default=4, help="busy processes beside the work")
    options.add_argument("--images", type=int, default=1000)
    return options


def main() -> None:
    """Print the medians of both clocks, alone and with neighbours."""
    args = parser().parse_args()
    set_up_torch()
    registry = Registry()
    vae = registry.build("defense", registry.resolve("defense", Spec("vae", SETTINGS)))
    data = random_images(args.images, size=24)
    found: dict[int, list[dict[str, float]]] = {0: [], args.neighbours: []}
    for _ in range(args.rounds):
        for count, measured in found.items():
            busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
            try:
                clock = Clock(torch.device("cpu"))
                vae.purify(data, Context())
                measured.append(dict(clock.seconds()))
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
    rows, ratios = [], []
    for name in ("seconds", "cpu_seconds"):
        alone, beside = (median([one[name] for one in runs]) for runs in found.values())
        ratios.append(beside / alone)
        rows.append([name, alone, beside, ratios[-1]])
    print(machine())
    print_table("a fit of vae", ["clock", "alone", f"{args.neighbours} neighbours", "ratio"], rows)
    print(f"CPU seconds beside neighbours: {verdict(ratios[1], TARGET)}")


if __name__ == "__main__":
    main()
