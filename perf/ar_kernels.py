"""Write the kernels that the attack AR ships, and print how strongly they differ.

    python perf/ar_kernels.py [--seed 0] [--count 100] [--out FILE]

The search takes part of a minute on one core. Without ``--out`` the script writes the file that
uebench ships, which holds a hundred kernels of seed 0.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from _common import machine, print_table

from attacks._ar_kernels import (
    SHIPPED,
    SIDE,
    Found,
    free_cells,
    lengths,
    responses,
    run,
    search,
    start,
)

SIGNALS = 64  # a kernel


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--count", type=int, default=100, help="number of kernels")
    options.add_argument("--out", type=Path, default=SHIPPED)
    return options


def measured(kernels: torch.Tensor) -> torch.Tensor:
    """Return responses of kernels' signals to the others' filters, float64 (K, K - 1, SIGNALS)."""
    generator = torch.Generator().manual_seed(0)
    shape = (SIGNALS, kernels.shape[1], len(free_cells(SIDE)))
    rows = []
    for index, kernel in enumerate(kernels):
        cells = torch.randn(shape, dtype=kernels.dtype, generator=generator)
        signals = run(kernel, start(cells))
        signals /= lengths(signals)[:, None, None, None]
        rows.append(responses(signals, torch.cat([kernels[:index], kernels[index + 1 :]])).T)
    return torch.stack(rows)


def write(found: Found, command: str, path: Path) -> None:
    """Write kernels and the command that made them, one kernel a line."""
    lines = ",\n".join(json.dumps(kernel.flatten().tolist()) for kernel in found.kernels)
    head = {"command": command, "candidates": found.candidates}
    text = f'{json.dumps(head)[:-1]}, "kernels": [\n{lines}\n]}}\n'
    path.write_text(text, encoding="utf-8")


def main() -> None:
    options = parser().parse_args()
    if options.out == SHIPPED and (options.seed, options.count) != (0, 100):
        parser().error(f"{SHIPPED.name} holds 100 kernels of seed 0; give others an --out")
    torch.set_num_threads(1)
    begin = time.perf_counter()
    found = search(options.count, seed=options.seed)
    took = time.perf_counter() - begin
    command = f"python perf/ar_kernels.py --seed {options.seed} --count {options.count}"
    write(found, command, options.out)
    print(f"{machine()}, one thread")
    print(f"{len(found.candidates)} kernels of seed {options.seed} in {took:.1f} s: {options.out}")
    rows = []
    for count in sorted({min(10, options.count), options.count}):
        pairs = measured(found.kernels[:count])
        share = (pairs >= 10).double().mean()
        tried = found.candidates[count - 1] + 1
        rows.append((count, f"{tried:,}", float(pairs.median()), float(pairs.min()), float(share)))
    print_table(
        f"Responses of {SIGNALS} signals of each kernel to each other kernel's filter",
        ("kernels", "tried", "median", "smallest", "share of 10 or more"),
        rows,
    )


if __name__ == "__main__":
    main()
