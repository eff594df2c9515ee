"""What the page says of one cell: each of its runs as recorded, and the commands that compute them
again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmark.analysis.table import CELL
from benchmark.report.numbers import number, percent

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("poison", "purify", "train")
READ = [  # of a run
    *(
        "seed",
        "craft_seed",
        "status",
        "error",
        "test_acc",
        "train_acc",
        *(f"seconds_{stage}" for stage in STAGES),
        "peak_memory_mb",
    ),
    *("facts", "environment", "protocol_spec", "command", "date", "key"),
]


@dataclass(frozen=True)
class Run:
    """One record in words: the seeds, and (what, text) of everything worth reading."""

    title: str
    record: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CellRuns:
    """The runs of one cell. ``commands`` is empty if the records do not hold enough for one."""

    runs: tuple[Run, ...]
    commands: tuple[str, ...]


def cell_runs(runs: pd.DataFrame) -> dict[tuple[Any, ...], CellRuns]:
    """``table.CELL`` -> the runs of that cell, for each cell of ``runs`` (see ``comparable``)."""
    cells: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    rows = runs[[*CELL, *READ]].sort_values(["craft_seed", "seed"])
    names = list(rows.columns)
    for values in zip(*(rows[name].tolist() for name in names), strict=True):
        cells.setdefault(values[: len(CELL)], []).append(dict(zip(names, values, strict=True)))
    return {cell: CellRuns(tuple(map(_run, rows)), _commands(rows)) for cell, rows in cells.items()}


def _commands(rows: Iterable[Mapping[Any, Any]]) -> tuple[str, ...]:
    """One for all seeds that differ in nothing else."""
    seeds: dict[str, list[str]] = {}
    for row in rows:
        seeds.setdefault(row["command"], []).append(str(row["seed"]))
    return tuple(
        f"{command} --seeds {','.join(found)}" for command, found in seeds.items() if command
    )


def _run(row: Mapping[Any, Any]) -> Run:
    craft = f", craft seed {row['craft_seed']}" if row["craft_seed"] else ""
    facts, environment = json.loads(row["facts"]), _parsed(row["environment"])
    seconds = ", ".join(
        f"{stage} {number(row[f'seconds_{stage}'])}"
        for stage in STAGES
        if row[f"seconds_{stage}"] == row[f"seconds_{stage}"]
    )
    record = {
        "test accuracy": f"{percent(row['test_acc'])} %"
        if row["status"] == "ok"
        else f"failed: {row['error']}",
        "training accuracy": f"{percent(row['train_acc'])} %"
        if row["train_acc"] == row["train_acc"]
        else "",
        **{stage: _listed(facts.get(stage, {})) for stage in STAGES},
        "seconds": seconds,
        "precision": _parsed(row["protocol_spec"])["precision"],
        "peak memory": f"{row['peak_memory_mb']:.0f} MB" if row["peak_memory_mb"] else "",
        "made with": _listed(
            {
                name: environment[name]
                for name in ("device", "torch", "git")
                if environment.get(name)
            }
        ),
        "date": row["date"],
        "key": row["key"],
    }
    return Run(
        f"seed {row['seed']}{craft}", tuple((name, text) for name, text in record.items() if text)
    )


@lru_cache(64)
def _parsed(text: str) -> Mapping[str, Any]:
    """Many runs have the same environment and protocol."""
    found: Mapping[str, Any] = json.loads(text)
    return found


def _listed(facts: Mapping[str, Any]) -> str:
    """``psnr mean 31.9, rounds 4``: numbers with four digits."""
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in facts.items()
    )
