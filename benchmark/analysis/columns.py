"""Explain the columns of the long table, and describe the files that hold it.

The description is plain JSON with the terms of Croissant (MLCommons, 2024): name, description,
license, distribution, fields. The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmark import __version__
from benchmark.analysis.table import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

MEANINGS: Mapping[str, str] = {
    "key": "sha256 of everything that decides the result of the cell",
    "status": "ok or failed",
    "dataset": "label of the data set",
    "victim": "architecture of the victim",
    "protocol": "name of the victim's training settings",
    "ratio": "share of the training images that is poisoned, 0 to 1",
    "preset": (
        "of the attack: empty for the default, official with the quirks of released code, "
        "any for attacks that have none"
    ),
    "attack": "label of the attack; none is clean data",
    "defense": "label of the defense; none is no defense",
    "seed": "of the victim: weights and order of batches",
    "craft_seed": "of poison and purification",
    "needs": "what the defense has beyond the training images, comma-separated",
    "is_clean": "whether the attack is none",
    "is_undefended": "whether the defense is none",
    "test_acc": (
        "share of clean test images classified correctly after the last epoch, 0 to 1; "
        "empty if failed"
    ),
    "train_acc": (
        "share of the training images that the victim trained on, classified correctly "
        "after the last epoch, 0 to 1"
    ),
    "peak_oracle": "largest test accuracy of all epochs, 0 to 1; chosen on test data, so no result",
    "curve": "test accuracy after each epoch, 0 to 1, as a JSON list",
    "seconds_poison": "wall time of poisoning",
    "seconds_purify": "wall time of purifying",
    "seconds_train": "wall time of the victim's training",
    "cpu_seconds_poison": "for which cores worked to poison; empty if on a GPU or in old records",
    "cpu_seconds_purify": "the same of purifying",
    "cpu_seconds_train": "the same of the victim's training",
    "device_seconds_poison": (
        "from the first to the last work of poisoning by the GPU's clock; empty if on a CPU or in "
        "old records"
    ),
    "device_seconds_purify": "the same of purifying",
    "device_seconds_train": "the same of the victim's training",
    "peak_memory_mb": "largest memory of the process that trained, in megabytes",
    "date": "when the record was written, UTC",
    "error": "why the cell failed",
    "dataset_spec": "the data set with its fingerprint, as JSON",
    "protocol_spec": "every training setting, as JSON",
    "attack_spec": (
        "the attack's name, version and every parameter, as JSON; lengths are in [0, 1] units"
    ),
    "defense_spec": "the defense's name, version and every parameter, as JSON",
    "facts": "what was measured of each stage, as JSON",
    "artifacts": "sha256 of poisoned and purified images, as JSON",
    "environment": "versions, device, threads and git commit, as JSON",
    "command": "command line that computes the cell again, without its seed",
    "record": "sha256 of the whole record",
    "superseded": (
        "whether a newer record of the same cell and seed stands in the table; such "
        "rows do not count"
    ),
}
TYPES = {"str": "text", "float64": "float", "int64": "integer", "bool": "boolean", "object": "text"}


def long_csv(table: pd.DataFrame) -> str:
    """The long table as CSV text: one row a record, with all columns of ``MEANINGS``.

    An empty field means that there is no value. Floats have all their digits.
    """
    return table.assign(curve=_curves(table)).to_csv(index=False, lineterminator="\n")


def long_parquet(table: pd.DataFrame) -> bytes:
    """The long table as the content of a Parquet file, for which ``pyarrow`` is needed.

    Raises:
        ImportError: if ``pyarrow`` is not installed; the message says what to install.
    """
    try:
        import_module("pyarrow")
    except ImportError as error:
        advice = "pip install pyarrow, or uebench with its extra, pip install -e '.[parquet]'"
        raise ImportError(f"pyarrow is not installed: {advice}") from error
    content: bytes = table.assign(curve=_curves(table)).to_parquet(index=False, engine="pyarrow")
    return content


def _curves(table: pd.DataFrame) -> list[str]:
    return [json.dumps(list(curve)) for curve in table["curve"]]


def describe(
    table: pd.DataFrame, files: Mapping[str, bytes], name: str, license_: str
) -> dict[str, Any]:
    """Describe the long table and the ``files`` (name -> content) that hold it, as plain JSON."""
    formats = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
    dates = sorted(date for date in table["date"] if date)
    kinds = {column: TYPES[kind] for column, kind in {**COLUMNS, "superseded": "bool"}.items()}
    return {
        "name": name,
        "description": (
            "Accuracies of victims trained on poisoned and purified images: one row a "
            "training, written by uebench."
        ),
        "license": license_,
        "creator": f"uebench {__version__}",
        "datePublished": dates[-1] if dates else "",
        "records": len(table),
        "distribution": [
            {
                "name": file,
                "encodingFormat": formats[file.rpartition(".")[2]],
                "contentSize": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for file, content in files.items()
        ],
        "fields": [
            {"name": column, "dataType": kinds[column], "description": meaning}
            for column, meaning in MEANINGS.items()
        ],
    }
