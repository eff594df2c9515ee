"""Measure how often ``regress`` raises a false alarm, and what it finds on the first night.

    python perf/regress_power.py [--nights 500] [--cells 100] [--seeds 3] [--accepted 1] [--seed 0]

The script draws nights and runs nothing. A night is a suite of cells with normal accuracies;
``benchmark.analysis.regression.compare`` compares it with the accepted ones. The script draws a
suspect cell again where the command would run it again. The environments differ, so that the
statistical lane decides.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from _common import print_table

from benchmark.analysis.cells import CellId, cell_of
from benchmark.analysis.findings import Kind
from benchmark.analysis.regression import compare
from benchmark.storage.record import Record

STD = 0.004  # of one run, as a share: 0.4 points


@dataclass(frozen=True)
class World:
    """The truth about the nights: accuracies, their scatter, the drop planted in the new ones."""

    mean: np.ndarray  # (cells,)
    std: np.ndarray  # (cells,)
    drop: np.ndarray  # (cells,)
    shared: float = 0.0  # std of what a seed adds to every cell

    def night(
        self,
        rng: np.random.Generator,
        seeds: range,
        environment: str,
        dropped: bool,
        only: frozenset[CellId] | None = None,
    ) -> list[Record]:
        """Return one record a cell and seed, of the cells ``only`` if given."""
        records = []
        for seed in seeds:
            acc = (
                self.mean
                + self.std * rng.standard_normal(len(self.mean))
                + self.shared * rng.standard_normal()
            )
            for number, value in enumerate(np.clip(acc - dropped * self.drop, 0, 1)):
                record = Record(
                    key=f"{number}/{seed}/{environment}",
                    dataset="drawn",
                    attack=f"attack{number}",
                    defense="none",
                    victim="none",
                    protocol="none",
                    seed=seed,
                    test_acc=float(value),
                    environment={"device": environment},
                )
                if only is None or cell_of(record) in only:
                    records.append(record)
        return records


@dataclass(frozen=True)
class Rates:
    """Shares of nights: with a suspect, with a regression after the rerun, with a true one."""

    suspect: float
    alarm: float
    found: float


def measure(world: World, nights: int, seeds: int, accepted: int, seed: int = 0) -> Rates:
    """Draw ``nights`` independent pairs of a history and a night after it, and judge each.

    The history is accepted; each pair is judged as the command does.
    """
    rng = np.random.default_rng(seed)
    suspect = alarm = found = 0
    everywhere = bool(world.drop.all())
    for _ in range(nights):
        history = [
            record
            for night in range(accepted)
            for record in world.night(rng, range(seeds), f"accepted {night}", dropped=False)
        ]
        tonight = world.night(rng, range(seeds), "tonight", dropped=True)
        verdict = compare(history, tonight)
        if not verdict.suspects:
            continue
        suspect += 1
        confirming = world.night(
            rng, range(seeds, 2 * seeds), "tonight", dropped=True, only=verdict.suspects
        )
        named = {
            item.cell
            for item in compare(history, tonight, confirming).findings
            if item.kind is Kind.regression
        }
        alarm += bool(named)
        found += (
            None in named
            if everywhere
            else any(world.drop[int(cell.attack.removeprefix("attack"))] for cell in named if cell)
        )
    return Rates(suspect / nights, alarm / nights, found / nights)


def worlds(cells: int, seed: int = 0) -> dict[str, World]:
    """Return healthy worlds and worlds with a planted drop."""
    rng = np.random.default_rng(seed)
    mean, none = rng.uniform(0.2, 0.9, cells), np.zeros(cells)
    alike, unlike = np.full(cells, STD), 10 ** rng.uniform(-3, -1.3, cells)  # 0.1 to 5 points
    one = none.copy()
    one[0] = 0.02
    return {
        "healthy": World(mean, alike, none),
        "healthy, cells scatter by 0.1 to 5 points": World(mean, unlike, none),
        "healthy, half of the scatter is the seed's and common to all cells": World(
            mean, alike / 2**0.5, none, shared=STD / 2**0.5
        ),
        "one cell 2 points lower": World(mean, alike, one),
        "all cells 1 point lower": World(mean, alike, np.full(cells, 0.01)),
        "all cells 0.3 points lower": World(mean, alike, np.full(cells, 0.003)),
    }


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument(
        "--nights", type=int, default=500, help="healthy ones; a fifth of that with a planted drop"
    )
    options.add_argument("--cells", type=int, default=100)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--accepted", type=int, default=1, help="nights in the accepted history")
    options.add_argument("--seed", type=int, default=0, help="of the draws")
    return options


def main() -> None:
    given = parser().parse_args()
    rows = []
    for name, world in worlds(given.cells, given.seed).items():
        nights = given.nights
        if world.drop.any():
            nights = max(nights // 5, 1)  # false alarms are rarer and need more
        rates = measure(world, nights, given.seeds, given.accepted, given.seed)
        found = f"{100 * rates.found:.0f} %" if world.drop.any() else "-"
        rows.append([name, nights, f"{20 * rates.suspect:.2f}", f"{20 * rates.alarm:.2f}", found])
    title = (
        f"{given.cells} cells, {given.seeds} seeds, {given.accepted} accepted nights, std "
        f"{100 * STD:g} points"
    )
    print_table(
        title,
        ["world", "nights", "suspect in 20", "regression in 20", "found on the first night"],
        rows,
    )


if __name__ == "__main__":
    main()
