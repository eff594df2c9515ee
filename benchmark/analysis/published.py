"""Read the accuracies that papers print, and the names of the papers' methods in this project.

Both are data files under ``results/``: ``published.csv`` and ``published_names.yaml``.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from benchmark.catalogue.registry import ROOT
from benchmark.catalogue.spec import Spec, parse_spec

FOLDER = ROOT / "results"
FILE = FOLDER / "published.csv"
NAMES_FILE = FOLDER / "published_names.yaml"
COLUMNS = (
    *("source_key", "dataset", "victim", "attack", "norm", "budget", "poison_ratio"),
    *("defense", "accuracy_mean", "accuracy_std", "epochs", "notes"),
)


@dataclass(frozen=True)
class Published:
    """One printed accuracy.

    Attributes:
        ratio: share of the training set that is poisoned; 0 for clean data.
        mean, std: shares in [0, 1]; ``std`` is NaN where none is printed.
        epochs: of the victim's training; None where they are not printed.
        budget: as printed, in [0, 1] pixel units (``8/255``) or pixels (``1px``); empty where none
            is printed.
        our_attack, our_defense: the corresponding method of this project, with the parameters that
            the paper fixes; None where the project has no such method.
    """

    source: str
    dataset: str
    victim: str
    attack: str
    norm: str
    budget: str
    ratio: float
    defense: str
    mean: float
    std: float
    epochs: int | None
    notes: str
    our_attack: Spec | None
    our_defense: Spec | None


@dataclass(frozen=True)
class PublishedNames:
    """The methods of this project by their identifiers in ``published.csv``."""

    attacks: Mapping[str, Spec]
    defenses: Mapping[str, Spec]


def load_published(file: Path = FILE) -> tuple[Published, ...]:
    """Read all printed accuracies, in the order of the file: a source's main table comes first.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a wrong header, or a value out of its range; the message names the line.
    """
    names = load_names()
    lines = csv.reader(_text(file).splitlines())
    header = tuple(next(lines, []))
    if header != COLUMNS:
        raise ValueError(
            f"{file}: the columns are {', '.join(header) or '(none)'}; "
            f"expected {', '.join(COLUMNS)}"
        )
    rows = []
    for values in lines:
        try:
            rows.append(_read(values, names))
        except ValueError as error:
            raise ValueError(f"{file}, line {lines.line_num}: {error}") from error
    return tuple(rows)


@cache
def load_names(file: Path = NAMES_FILE) -> PublishedNames:
    """Read which methods of this project the identifiers of ``published.csv`` stand for.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not YAML, or an entry is not a method; the message names it.
    """
    try:
        content = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    kinds = ("attacks", "defenses")
    if not isinstance(content, dict) or set(content) != set(kinds):
        raise ValueError(f"{file}: expected the two mappings {' and '.join(kinds)}, and no others")
    return PublishedNames(*(_specs(content[kind], f"{file}, {kind}") for kind in kinds))


def _specs(names: object, where: str) -> dict[str, Spec]:
    if not isinstance(names, dict):
        raise ValueError(f"{where}: {names!r}, expected a mapping of identifiers to methods")
    specs = {}
    for name, text in names.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(
                f"{where}: {name!r} stands for {text!r}, expected an identifier and a method as "
                "texts, such as em: em[granularity=sample]"
            )
        try:
            specs[name] = parse_spec(text)
        except ValueError as error:
            raise ValueError(f"{where}, {name}: {error}") from error
    return specs


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{file} does not exist; it comes with the source code of uebench, not with an "
            "installed package"
        ) from error


def _read(values: Sequence[str], names: PublishedNames) -> Published:
    if len(values) != len(COLUMNS):
        raise ValueError(f"{len(values)} values, expected {len(COLUMNS)}")
    row = dict(zip(COLUMNS, values, strict=True))
    for name in ("source_key", "dataset", "attack", "defense"):
        if not re.fullmatch(r"[a-z0-9_.]+", row[name]):
            raise ValueError(
                f'{name} is "{row[name]}", expected lower-case letters, digits, _ and .'
            )
    ratio = _number(row, "poison_ratio", 1)
    if (ratio == 0) != (row["attack"] == "none"):
        raise ValueError(
            f"attack {row['attack']} with poison_ratio {ratio:g}; "
            "expected ratio 0 for none and only for it"
        )
    if not re.fullmatch(r"|[1-9][0-9]*", row["epochs"]):
        raise ValueError(f'epochs is "{row["epochs"]}", expected a positive number or nothing')
    return Published(
        row["source_key"],
        row["dataset"],
        row["victim"],
        row["attack"],
        row["norm"],
        row["budget"],
        ratio,
        row["defense"],
        _number(row, "accuracy_mean", 100) / 100,
        _number(row, "accuracy_std", 100) / 100 if row["accuracy_std"] else math.nan,
        int(row["epochs"]) if row["epochs"] else None,
        row["notes"],
        names.attacks.get(row["attack"]),
        names.defenses.get(row["defense"]),
    )


def _number(row: Mapping[str, str], name: str, most: float) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise ValueError(f'{name} is "{row[name]}", expected a number from 0 to {most:g}')
    return value
