"""The record of one cell: what was run, where, and what came out.

Written once, whole, and never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.storage.atomic import check_schema, read_object

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell's result. Accuracies are in [0, 1]; seconds are wall time.

    ``attack``, ``defense`` and ``dataset`` are the labels of tables; the ``*_spec`` dicts hold
    ``name``, ``version`` and every parameter. That of the data set says which images they are, by
    their fingerprint, and ``dataset_params`` how they were read. ``test_acc`` is the accuracy after
    the last epoch; ``curve`` holds one value an epoch. ``status`` is ``ok`` or ``failed``; a failed
    record has no accuracy and says why in ``error``. ``identity`` is what decides the result, the
    mapping whose digest is the key; records from before there was this field have none.
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
    dataset_params: Mapping[str, Any] = field(
        default_factory=dict
    )  # empty in records of before there was this field
    attack_spec: Mapping[str, Any] = field(default_factory=dict)
    defense_spec: Mapping[str, Any] = field(default_factory=dict)
    protocol_spec: Mapping[str, Any] = field(default_factory=dict)
    test_acc: float | None = None
    train_acc: float | None = None
    curve: tuple[float, ...] = ()
    loss_curve: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  # poison, purify, train
    peak_memory_mb: float = 0.0
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # per stage: what verification measured and what the method noted
    artifacts: Mapping[str, str] = field(
        default_factory=dict
    )  # poison, purify -> sha256 of the images
    environment: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # file -> sha256
    identity: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. An empty ``identity`` is left out, as in the files of older records."""
        values = asdict(self)
        if not self.identity:
            del values["identity"]
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: if the record was written by a newer uebench, or lacks a field.
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
    """The record in a file of the store.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is damaged or of a newer schema; the message names the file.
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
    """The JSON object of a stage's result; ``what`` says in messages what the file is."""
    try:
        return read_object(path, "delete it and run again")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {what} {path}; run the stage first") from error
    except ValueError as error:
        raise ValueError(f"the {what} {error}") from error
