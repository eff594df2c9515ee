"""Records of made-up nights, and a short form of a verdict's findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.analysis.findings import Verdict
from benchmark.storage.record import Record

GOLDEN = Path(__file__).parents[1] / "golden"
HERE = {"torch": "2.14.1", "device": "A CPU", "device_type": "cpu", "threads": 1}
THERE = {**HERE, "torch": "2.15.0"}


def record(attack: str, acc: float | None, seed: int = 0, **values: Any) -> Record:
    fields: dict[str, Any] = {
        "key": f"{attack}/{seed}",
        "status": "failed" if acc is None else "ok",
        "dataset": "toy",
        "victim": "net",
        "protocol": "quick",
        "defense": "none",
        "curve": () if acc is None else (acc / 2, acc),
        "seconds": {"train": 10.0},
        "artifacts": {"poison": f"{attack} images"},
        "attack_spec": {"name": attack, "version": 1, "params": {"eps": 0.5}},
        "environment": HERE,
        "date": "2026-11-26T03:00:00Z",
        "sources": {"attacks/a.py": "1"},
    }
    return Record(**fields | {"attack": attack, "test_acc": acc, "seed": seed} | values)


def night(levels: dict[str, Sequence[float | None]], **values: Any) -> list[Record]:
    """Return a record for each attack and seed."""
    return [
        record(attack, acc, seed, **values)
        for attack, accs in levels.items()
        for seed, acc in enumerate(accs)
    ]


def told(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [
        (item.kind.value, item.cell.attack if item.cell else "all", item.message)
        for item in verdict.findings
    ]


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(kind, cell) for kind, cell, _ in told(verdict)]


# Ten cells with a standard deviation of 0.004; which seed is the best differs from cell to cell.
STEADY: dict[str, Sequence[float | None]] = {
    f"a{i}": [0.5 + i / 100 + (seed + i) % 3 * 0.004 for seed in range(3)] for i in range(10)
}


def lower(
    levels: dict[str, Sequence[float | None]], by: float, only: Sequence[str] = ()
) -> dict[str, Sequence[float | None]]:
    return {
        name: [acc - (by if not only or name in only else 0) for acc in accs if acc is not None]
        for name, accs in levels.items()
    }
