"""Records of made-up defenses, for tests of the comparison and of what is printed of it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.analysis.comparison import Comparison, comparisons
from benchmark.analysis.table import to_table
from benchmark.report.comparison import print_comparison
from benchmark.storage.record import Record

GOLDEN = Path(__file__).parents[1] / "golden"
SIX = (2.0, 2.3, 1.8, 2.2, 2.1, 1.9)
SIX_HIGH = [0.5 + d / 100 for d in SIX]
NASTY = '<b>"x" & $y_1$ | *z*</b>'
Accs = Mapping[str, Mapping[str, Sequence[float | None]]]


def plain(
    attack: str, defense: str, acc: float | None, seed: int, values: dict[str, Any], **own: Any
) -> Record:
    """Make a record of ``values``, else of the test module's ``own``, else of the values here.

    A record without an accuracy is a failed one.
    """
    fields: dict[str, Any] = {
        "key": f"{attack}/{defense}/{seed}/{sorted(values.items())}",
        "dataset": "toy",
        "victim": "net",
        "protocol": "quick",
        "seconds": {"purify": 0.0, "train": 10.0},
        "status": "failed" if acc is None else "ok",
    }
    return Record(
        **fields
        | own
        | {"attack": attack, "defense": defense, "test_acc": acc, "seed": seed}
        | values
    )


def record(attack: str, defense: str, acc: float | None, *, seed: int = 0, **values: Any) -> Record:
    own = {
        "dataset": "made-up",
        "seconds": {"purify": 5.0 if defense == "mine" else 0.0, "train": 10.0},
        "environment": {"device": "cpu", "threads": 1, "git": f"commit {seed}"},
        "date": "2025-11-26T12:00:00+00:00",
    }
    return plain(attack, defense, acc, seed, values, **own)


def records(accs: Accs, **values: Any) -> list[Record]:
    """attack -> defense -> one accuracy a seed."""
    return [
        record(attack, defense, acc, seed=seed, **values)
        for attack, row in accs.items()
        for defense, seeds in row.items()
        for seed, acc in enumerate(seeds)
    ]


def compared(made: Sequence[Record], ours: str = "mine", reference: str = "other") -> Comparison:
    (found,) = comparisons(to_table(made), ours, reference)
    return found


def with_differences(**points: Sequence[float]) -> Comparison:
    """attack -> differences in points, one a seed; the reference has 0.5 throughout."""
    return compared(
        records(
            {
                attack: {"mine": [0.5 + d / 100 for d in row], "other": [0.5] * len(row)}
                for attack, row in points.items()
            }
        )
    )


BY_HAND: Accs = {
    "none": {"none": (0.92, 0.90, 0.91), "mine": (0.90, 0.88, 0.89), "other": (0.86, 0.85, 0.87)},
    "em": {"none": (0.10, 0.12, 0.14), "mine": (0.70, 0.72, 0.77), "other": (0.66, 0.70, 0.71)},
    "lsp": {"none": (0.30, 0.30, 0.30), "mine": (0.60, 0.61, 0.62), "other": (0.61, 0.61, 0.61)},
}


def example() -> list[Record]:
    """Return the made-up numbers that docs/compare.md and the golden files show, with six seeds."""
    points = {
        "none": (-1.1, -0.3, -0.9, -1.6, -0.2, -1.4),
        "em": (3.1, 2.2, 4.0, 3.6, 2.7, 3.3),
        "lsp": (1.9, 0.8, 1.2, 2.3, 1.6, 1.1),
        "ops": (-0.6, 1.2, -0.8, 1.3, -0.9, 0.3),
    }
    levels = {"none": (0.91, 0.88), "em": (0.10, 0.71), "lsp": (0.15, 0.66), "ops": (0.20, 0.60)}
    accs: dict[str, dict[str, list[float | None]]] = {}
    for attack, (undefended, level) in levels.items():
        other = [level + 0.004 * (seed * 7 % 5) for seed in range(6)]
        mine = [acc + d / 100 for acc, d in zip(other, points[attack], strict=True)]
        accs[attack] = {"none": [undefended] * 6, "mine": [*mine], "other": [*other]}
    return records(accs)


def printed(c: Comparison, **console: Any) -> str:
    file = io.StringIO()
    print_comparison(c, Console(file=file, **console))
    return "\n".join(line.rstrip() for line in file.getvalue().strip().splitlines())
