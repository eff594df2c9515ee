"""Which cells the last run of a suite had, written beside its report so that reporting needs records alone; and their records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmark.atomic import publish, read_object
from benchmark.plan import Plan
from benchmark.record import Record
from benchmark.store import Store

FILE = "selection.json"


def save_selection(folder: Path, plan: Plan) -> None:
    """Writes the keys of a plan's cells into the suite's folder of results; a run of which all was cached writes nothing.

    Raises:
        OSError: if the folder cannot be written.
    """
    text = json.dumps({"cells": [cell.key for cell in plan.cells]}, indent=1).encode() + b"\n"
    if not (folder / FILE).is_file() or (folder / FILE).read_bytes() != text:
        publish(folder / FILE, text)


def last_selection(folder: Path) -> list[str] | None:
    """The keys of the cells that the suite's last run had, in its order; None if it never ran.

    Raises:
        ValueError: if the file is damaged.
    """
    advice = "delete it and run the suite again"
    try:
        cells = read_object(folder / FILE, advice).get("cells")
    except FileNotFoundError:
        return None
    if not isinstance(cells, list) or not all(isinstance(key, str) for key in cells):
        raise ValueError(f"{folder / FILE} is damaged (it lists no cells); {advice}")
    return cells


def records_of(store: Store, keys: Iterable[str]) -> list[Record]:
    """The records of these cells, of failed ones too. One that failed only in a later, forced attempt keeps its result.

    Raises:
        ValueError: if one of them is damaged or of a newer schema.
    """
    records = []
    for key in keys:
        if store.has_record(key):
            records.append(store.record(key))
        elif (failure := store.failure(key)) is not None and failure.get("record"):
            records.append(Record.from_json(failure["record"]))
    return records
