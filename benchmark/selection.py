"""Which cells the last run of a suite had: written beside its report, so that reporting needs records alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmark.atomic import publish
from benchmark.plan import Plan

FILE = "selection.json"
SCHEMA = 1


def save_selection(folder: Path, plan: Plan) -> None:
    """Writes the keys of a plan's cells into the suite's folder of results.

    Raises:
        OSError: if the folder cannot be written.
    """
    content = {"schema": SCHEMA, "suite": plan.suite.name, "cells": [cell.key for cell in plan.cells]}
    text = json.dumps(content, indent=1).encode() + b"\n"
    if not (folder / FILE).is_file() or (folder / FILE).read_bytes() != text:  # a run of which all was cached writes nothing
        publish(folder / FILE, text)


def last_selection(folder: Path) -> list[str] | None:
    """The keys of the cells that the suite's last run had, in its order; None if it never ran.

    Raises:
        ValueError: if the file is damaged.
    """
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); delete it and run the suite again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not _is_keys(content.get("cells")):
        raise ValueError(f"{file} is not the selection of a run (schema {SCHEMA}); delete it and run the suite again")
    return list(content["cells"])


def _is_keys(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) for key in value)
