"""The record of one cell: what was run, on which machine, and with what result.

A record is written once, whole, and never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.storage.atomic import check_schema, read_object

SCHEMA = 1

# The fields that hold seconds, those that depend least on a machine's other work first.
CLOCKS = ("device_seconds", "cpu_seconds", "seconds")

LATER = ("identity", "cpu_seconds", "device_seconds")  # fields that the first records lack


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell's result.

    Attributes:
        schema: version of the file format.
        key: digest of ``identity``, the file's name in the store.
        status: ``ok`` or ``failed``; a failed record has no accuracy, and ``error`` says why.
        dataset, attack, defense: labels for tables.
        needs: what the defense has beyond the training images.
        attack_spec, defense_spec: ``name``, ``version`` and every parameter.
        dataset_spec: the name and the fingerprint of the images.
        dataset_params: the parameters with which the images were read; empty in older records.
        protocol_spec: every training setting.
        test_acc, train_acc: accuracies after the last epoch, in [0, 1].
        curve, loss_curve: test accuracy and training loss of each epoch.
        seconds: wall time of the stages ``poison``, ``purify`` and ``train``.
        cpu_seconds: for which cores worked for each stage that ran on a CPU; older records have
            none.
        device_seconds: by a GPU's own clock, from the first to the last work of each stage that
            ran on one; older records have none.
        peak_memory_mb: of the process that trained.
        facts: per stage, what verification measured and what the method noted; and under ``data``
            the number of ``classes``, of ``test`` images, and of training images on which
            ``train_acc`` was measured (``train_measured``), which older records lack.
        artifacts: sha256 of the images of the stages ``poison`` and ``purify``.
        environment: versions, device, threads and git commit.
        sources: sha256 of every project file that the numbers depend on.
        identity: everything that decides the result; older records have none.
        date: when the record was written, UTC.
    """

    schema: int = SCHEMA
    key: str
    status: str = "ok"
    dataset: str
    attack: str
    defense: str
    victim: str
    protocol: str
    ratio: float = 1.0
    seed: int = 0
    craft_seed: int = 0
    precision: str = "fp32"
    needs: tuple[str, ...] = ()
    dataset_spec: Mapping[str, Any] = field(default_factory=dict)
    dataset_params: Mapping[str, Any] = field(default_factory=dict)
    attack_spec: Mapping[str, Any] = field(default_factory=dict)
    defense_spec: Mapping[str, Any] = field(default_factory=dict)
    protocol_spec: Mapping[str, Any] = field(default_factory=dict)
    test_acc: float | None = None
    train_acc: float | None = None
    curve: tuple[float, ...] = ()
    loss_curve: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    device_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record in plain JSON types.

        Empty fields that older records lack are left out, as in their files.
        """
        return {name: value for name, value in asdict(self).items() if value or name not in LATER}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Build a record from what ``to_json`` wrote.

        Raises:
            ValueError: if a newer uebench wrote the record, or if it lacks a field.
        """
        check_schema(data, SCHEMA, "the record", "delete it and run the cell again")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in _FIELDS
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"incomplete record: {error}") from error


_FIELDS = frozenset(item.name for item in fields(Record))


def read_record(path: Path) -> Record:
    """Read the record in a file of the store.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if the file is damaged or of a newer schema; the message names the file.
    """
    data = read_result(path, "record")
    try:
        record = Record.from_json(data)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if record.key != path.stem:
        raise ValueError(
            f"{path} is damaged: it holds the record of {record.key}; delete it and run again"
        )
    return record


def read_result(path: Path, what: str) -> dict[str, Any]:
    """Read the JSON file of a stage's result; ``what`` names the kind of file in messages."""
    try:
        return read_object(path, "delete it and run again")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {what} {path}; run the stage first") from error
    except ValueError as error:
        raise ValueError(f"the {what} {error}") from error
