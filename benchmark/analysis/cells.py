"""Sort records into cells, and read their accuracies and environments, for ``regression``.

``CellId`` names a cell, ``by_cell`` sorts records into cells, ``accuracies`` lists the results of a
cell, and ``numeric_environment`` says where a record was made.

The module works on records and not on the long table. Labels of the long table depend on which
other records it holds, but a cell must have the same name in every night.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmark.storage.record import Record


class CellId(NamedTuple):
    """The labels of one cell, as its suite writes them. Its runs differ only in their seeds."""

    dataset: str
    victim: str
    protocol: str
    ratio: float
    attack: str
    defense: str

    @property
    def group(self) -> str:
        """The labels within which accuracies are compared."""
        ratio = [f"ratio {self.ratio:g}"] if self.ratio != 1 else []
        return " / ".join([self.dataset, self.victim, self.protocol, *ratio])

    @property
    def name(self) -> str:
        """The labels that distinguish the cells of a group."""
        return f"{self.attack} + {self.defense}"


def cell_of(record: Record) -> CellId:
    """The cell that a record belongs to."""
    return CellId(
        record.dataset, record.victim, record.protocol, record.ratio, record.attack, record.defense
    )


def by_cell(records: Iterable[Record]) -> dict[CellId, list[Record]]:
    """The records of each cell; cells are sorted, records ordered by seeds and date."""
    cells: dict[CellId, list[Record]] = {}
    for record in records:
        cells.setdefault(cell_of(record), []).append(record)
    return {
        cell: sorted(runs, key=lambda run: (run.seed, run.craft_seed, run.date))
        for cell, runs in sorted(cells.items())
    }


def is_finished(run: Record) -> bool:
    """Whether the run succeeded and has a finite accuracy."""
    return run.status == "ok" and run.test_acc is not None and math.isfinite(run.test_acc)


def numeric_environment(record: Record) -> dict[str, Any]:
    """The part of a record's environment that may move the last bits: versions, device, threads.

    The git commit is not part of it, since a night exists to test the commit.
    """
    return {name: value for name, value in record.environment.items() if name != "git"}


def accuracy(run: Record) -> float:
    """The test accuracy of a finished run, in [0, 1].

    Raises:
        ValueError: if the record holds none, or one outside [0, 1].
    """
    acc = run.test_acc
    if acc is None or not 0 <= acc <= 1:
        raise ValueError(
            f"record {run.key}: test_acc is {acc}, expected a share in [0, 1]; delete the record "
            "and run the cell again"
        )
    return acc


def accuracies(runs: Iterable[Record]) -> dict[tuple[int, int, int], float]:
    """The accuracies of a cell, by seed, craft seed and the number of the repetition.

    Runs of one seed that are equal in accuracy and curve are one draw that was made twice, and
    count once.
    """
    accs: dict[tuple[int, int, int], float] = {}
    draws: dict[tuple[int, int], list[tuple[float, tuple[float, ...]]]] = {}
    for run in runs:
        known, draw = draws.setdefault((run.seed, run.craft_seed), []), (accuracy(run), run.curve)
        if draw not in known:
            accs[run.seed, run.craft_seed, len(known)] = draw[0]
            known.append(draw)
    return accs
