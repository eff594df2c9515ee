"""Read and write the baseline and the history of a regression suite, two files of JSON lines.

The *baseline* of a suite, ``results/baselines/<suite>.jsonl``, holds the accepted records, one a
line and ordered by cell, so that a commit shows which numbers it accepts. The *history*,
``results/<suite>/history.jsonl``, gets one line a night. Only plots read it: the findings depend
on the baseline and on tonight's records alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.analysis.cells import CellId, cell_of, is_finished, numeric_environment
from benchmark.keys import canonical_json
from benchmark.storage.atomic import explained, publish
from benchmark.storage.record import Record


@dataclass(frozen=True)
class Night:
    """The accuracies of one night, in [0, 1], one a seed.

    ``date`` is the date of the night's newest record.
    """

    date: str
    accuracies: Mapping[CellId, tuple[float, ...]]


def read_baseline(file: Path) -> list[Record]:
    """Read the accepted records; the list is empty if the file is not there.

    Raises:
        ValueError: if a line is not a record, or of a newer schema; the message names file and
            line.
    """
    records = []
    for number, value in _lines(file):
        try:
            records.append(Record.from_json(value))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
    return records


def write_baseline(file: Path, records: Iterable[Record]) -> int:
    """Write the finished records as a baseline, and return how many there are.

    Facts and losses are left out, since no comparison reads them. Of several records with the same
    results from the same kind of machine, the last one is written.

    Raises:
        OSError: if the file cannot be written.
    """
    kept: dict[str, tuple[tuple[Any, ...], Record]] = {}
    for record in records:
        if is_finished(record):
            content = [
                record.key,
                numeric_environment(record),
                record.test_acc,
                record.curve,
                dict(record.artifacts),
            ]
            place = (*cell_of(record), record.seed, record.craft_seed, record.date)
            kept[canonical_json(content)] = place, replace(record, facts={}, loss_curve=())
    lines = [
        json.dumps(record.to_json(), sort_keys=True)
        for _, record in sorted(kept.values(), key=lambda item: item[0])
    ]
    publish(file, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def night_of(records: Iterable[Record]) -> Night:
    """The night that consists of the finished ones among ``records``."""
    done = [record for record in records if is_finished(record)]
    accuracies: dict[CellId, tuple[float, ...]] = {}
    for record in sorted(done, key=lambda item: (cell_of(item), item.seed, item.craft_seed)):
        accuracies[cell_of(record)] = (
            *accuracies.get(cell_of(record), ()),
            float(record.test_acc or 0.0),
        )
    return Night(max((record.date for record in done), default=""), accuracies)


def read_history(file: Path) -> list[Night]:
    """Read the nights so far, in order; the list is empty if the file is not there.

    Raises:
        ValueError: if a line is not a night; the message names file and line.
    """
    nights = []
    for number, value in _lines(file):
        try:
            nights.append(
                Night(
                    str(value["night"]),
                    {CellId(*labels): tuple(map(float, accs)) for *labels, accs in value["cells"]},
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}, line {number}: not a night ({error!r}); delete the line"
            ) from error
    return nights


def append_night(file: Path, night: Night) -> None:
    """Append one night to the history.

    Raises:
        OSError: if the file cannot be written.
    """
    line = canonical_json(
        {
            "night": night.date,
            "cells": [[*cell, list(accs)] for cell, accs in night.accuracies.items()],
        }
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as handle:
            handle.write(line.encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise explained(error, file.parent) from error


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line, counted from 1, and its JSON object."""
    try:
        lines: Sequence[bytes] = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}: not JSON ({error}); restore the file, or delete the line"
            ) from error
        if not isinstance(value, dict):
            raise ValueError(
                f"{file}, line {number}: a {type(value).__name__}, expected an object; restore "
                "the file, or delete the line"
            )
        yield number, value
