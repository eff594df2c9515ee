"""Remember the cells of a suite's last run, and find their records.

The run writes its selection of cells beside its report, so that a later report needs records alone.
A record keeps the spelling of the run that made it, such as ``dvae[kd=3.0]``, while a suite may
call the same cell ``dvae``. So a selection holds the suite's own labels, and reports show these.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.keys import canonical_json
from benchmark.planning.plan import Plan
from benchmark.storage.atomic import publish, read_object
from benchmark.storage.record import Record
from benchmark.storage.store import Store

FILE = "selection.json"
LABELS = ("dataset", "attack", "defense")

# Key of each cell -> its labels, some of LABELS. Where one is missing, that of the record is shown.
Selection = Mapping[str, Mapping[str, str]]


def selection_of(plan: Plan) -> Selection:
    """Select the cells of a plan, in its order."""
    return {cell.key: {label: str(getattr(cell, label)) for label in LABELS} for cell in plan.cells}


def save_selection(folder: Path, selection: Selection) -> None:
    """Write a selection into the suite's folder of results, unless it is there already.

    Raises:
        OSError: if the folder cannot be written.
    """
    cells = [{"key": key, **labels} for key, labels in selection.items()]
    text = json.dumps({"cells": cells}, indent=1).encode() + b"\n"
    if not (folder / FILE).is_file() or (folder / FILE).read_bytes() != text:
        publish(folder / FILE, text)


def last_selection(folder: Path) -> Selection | None:
    """Read the cells of the suite's last run, in its order; None if it never ran.

    Raises:
        ValueError: if the file is damaged.
    """
    advice = "delete it and run the suite again"
    try:
        cells = read_object(folder / FILE, advice).get("cells")
    except FileNotFoundError:
        return None
    if isinstance(cells, list):  # older files hold keys without labels
        cells = [{"key": cell} if isinstance(cell, str) else cell for cell in cells]
    if not isinstance(cells, list) or not all(
        isinstance(cell, dict) and isinstance(cell.get("key"), str) for cell in cells
    ):
        raise ValueError(f"{folder / FILE} is damaged (it lists no cells); {advice}")
    return {
        cell["key"]: {label: str(cell[label]) for label in LABELS if label in cell}
        for cell in cells
    }


def records_of(store: Store, selection: Selection) -> list[Record]:
    """Return the records of these cells, also of failed ones, under the selection's labels.

    A cell that failed only in a later, forced attempt keeps its result.

    Raises:
        ValueError: if one of them is damaged or of a newer schema.
    """
    records = []
    for key, labels in selection.items():
        if store.has_record(key):
            records.append(_labelled(store.record(key), **labels))
        elif (failure := store.failure(key)) is not None and failure.get("record"):
            records.append(_labelled(Record.from_json(failure["record"]), **labels))
    return records


def other_seeds(store: Store, records: Sequence[Record]) -> dict[int, int]:
    """Count further records of the same cells with other seeds in the store.

    Returns:
        Seed -> number of records.

    Raises:
        ValueError: as ``records_of`` does.
    """
    shown = {record.key for record in records}
    cells = {_cell(record) for record in records}
    found = (record for record in store.records() if record.key not in shown)
    return dict(sorted(Counter(record.seed for record in found if _cell(record) in cells).items()))


def _cell(record: Record) -> str:
    """Return the identity of a record's cell, without the seed."""
    specs = (record.dataset_spec, record.attack_spec, record.defense_spec, record.protocol_spec)
    return canonical_json([*map(dict, specs), record.victim, record.ratio, record.precision])


def every_record(store: Store) -> list[Record]:
    """Return all records of the store, also of failed cells, under their own labels.

    A failed cell that has a result from an earlier attempt occurs once, with that result.

    Raises:
        ValueError: as ``records_of`` does.
    """
    failed = [
        str(failure["key"]) for failure in store.failures() if not store.has_record(failure["key"])
    ]
    return [*store.records(), *records_of(store, {key: {} for key in failed})]


def _labelled(record: Record, dataset: str = "", attack: str = "", defense: str = "") -> Record:
    return replace(
        record,
        dataset=dataset or record.dataset,
        attack=attack or record.attack,
        defense=defense or record.defense,
    )
