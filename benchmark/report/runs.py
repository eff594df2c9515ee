"""Describe the runs of one cell for the page, with the commands that compute them again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmark.analysis.table import CELL, SECONDS_IN_WORDS
from benchmark.report.numbers import number, percent

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("poison", "purify", "train")
READ = [  # the columns of the long table that describe a run
    *("seed", "craft_seed", "status", "error", "test_acc", "train_acc"),
    *(f"{clock}_{stage}" for clock in SECONDS_IN_WORDS for stage in STAGES),
    *("peak_memory_mb", "facts", "environment", "protocol_spec", "command", "date", "key"),
]


@dataclass(frozen=True)
class Run:
    """One record in words.

    ``title`` names the seeds; ``record`` holds pairs of a title and a text.
    """

    title: str
    record: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CellRuns:
    """The runs of one cell, and the commands that compute them again.

    ``commands`` is empty if the records do not hold enough for a command.
    """

    runs: tuple[Run, ...]
    commands: tuple[str, ...]


def cell_runs(runs: pd.DataFrame) -> dict[tuple[Any, ...], CellRuns]:
    """The runs of each cell, by the values of ``table.CELL``.

    ``runs`` are rows of ``table.comparable``.
    """
    cells: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    rows = runs[[*CELL, *READ]].sort_values(["craft_seed", "seed"])
    names = list(rows.columns)
    for values in zip(*(rows[name].tolist() for name in names), strict=True):
        cells.setdefault(values[: len(CELL)], []).append(dict(zip(names, values, strict=True)))
    return {cell: CellRuns(tuple(map(_run, rows)), _commands(rows)) for cell, rows in cells.items()}


def _commands(rows: Iterable[Mapping[Any, Any]]) -> tuple[str, ...]:
    """The commands for a cell, each with all seeds that differ in nothing else."""
    seeds: dict[str, list[str]] = {}
    for row in rows:
        seeds.setdefault(row["command"], []).append(str(row["seed"]))
    return tuple(
        f"{command} --seeds {','.join(values)}" for command, values in seeds.items() if command
    )


def _run(row: Mapping[Any, Any]) -> Run:
    craft = f", craft seed {row['craft_seed']}" if row["craft_seed"] else ""
    facts, environment = json.loads(row["facts"]), _parsed(row["environment"])
    seconds = {
        words: ", ".join(
            f"{stage} {number(row[f'{clock}_{stage}'])}"
            for stage in STAGES
            if not math.isnan(row[f"{clock}_{stage}"])
        )
        for clock, words in SECONDS_IN_WORDS.items()
    }
    test_acc, train_acc = f"{percent(row['test_acc'])} %", f"{percent(row['train_acc'])} %"
    made_with = {
        name: environment[name] for name in ("device", "torch", "git") if environment.get(name)
    }
    record = {
        "test accuracy": test_acc if row["status"] == "ok" else f"failed: {row['error']}",
        "training accuracy": "" if math.isnan(row["train_acc"]) else train_acc,
        **{stage: _listed(facts.get(stage, {})) for stage in STAGES},
        **seconds,
        "precision": _parsed(row["protocol_spec"])["precision"],
        "peak memory": f"{row['peak_memory_mb']:.0f} MB" if row["peak_memory_mb"] else "",
        "made with": _listed(made_with),
        "date": row["date"],
        "key": row["key"],
    }
    return Run(
        f"seed {row['seed']}{craft}", tuple((name, text) for name, text in record.items() if text)
    )


@lru_cache(64)
def _parsed(text: str) -> Mapping[str, Any]:
    """Parse a JSON text; cached, since many runs have the same environment and protocol."""
    values: Mapping[str, Any] = json.loads(text)
    return values


def _listed(facts: Mapping[str, Any]) -> str:
    """List facts as ``psnr mean 31.9, rounds 4``, with four digits a number."""
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in facts.items()
    )
