"""Accuracies that papers print, from ``results/published.csv``, and what the papers' methods are called here."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.catalogue.registry import ROOT

FILE = ROOT / "results" / "published.csv"
COLUMNS = (
    *("source_key", "dataset", "victim", "attack", "norm", "budget", "poison_ratio"),
    *("defense", "accuracy_mean", "accuracy_std", "epochs", "notes"),
)

# What the papers' methods are here. The parameters say which setting is meant, also where it is the default; all others may differ
# and are told as differences. What is not listed has no counterpart: ``jpeg`` is of a quality that is not printed.
ATTACKS: Mapping[str, str] = {
    "none": "none",
    "em": "em[granularity=sample]",
    "em_classwise": "em[granularity=class]",
    "rem": "rem",
    "sem": "sem",
    "tap": "tap[targeted=true]",
    "sep": "sep",
    "lsp": "lsp",
    "ar": "ar",
    "ops": "ops[pixels=1]",
    "ops_2px": "ops[pixels=2]",
    "ops_3px": "ops[pixels=3]",
    "ops_4px": "ops[pixels=4]",
    "em_ops": "em[granularity=sample]+ops[pixels=1]",
    "ntga": "ntga",
    "hypo": "hypo",
    "cuda": "cuda",
}
DEFENSES: Mapping[str, str] = {
    "none": "none",
    "dvae": "dvae",
    "grayscale": "grayscale[test=false]",
    "iss_gray": "grayscale[test=false]",
    "jpeg10": "jpeg[quality=10,test=false]",
    "iss_jpeg": "jpeg[quality=10,test=false]",
    "bdr2": "bdr[bits=2,test=false]",
    "gaussian": "blur[sigma=0.1,test=false]",
    "at": "at[norm=linf,eps=8/255]",
    **{f"at_linf{level}": f"at[norm=linf,eps={level}/255]" for level in (2, 4, 6, 14, 16)},
    **{
        f"at_l2_{eps}": f"at[norm=l2,eps={eps},start=uniform]"  # start: see ``later`` of ``at``
        for eps in ("0.25", "0.5", "0.75")
    },
}


@dataclass(frozen=True)
class Published:
    """One printed accuracy.

    Attributes:
        ratio: share of the training set that is poisoned; 0 for clean data.
        mean, std: shares in [0, 1]; ``std`` is NaN where none is printed.
        epochs: of the victim's training; None where they are not printed.
        budget: as printed, in [0, 1] pixel units (``8/255``) or pixels (``1px``); empty where it is not.
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


def load_published(file: Path = FILE) -> tuple[Published, ...]:
    """All printed accuracies, in the order of the file, in which a source's main table comes first.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a wrong header, or a value out of its range; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{file} does not exist; it comes with the source code of uebench, not with an installed package"
        ) from error
    lines = csv.reader(text.splitlines())
    header = tuple(next(lines, []))
    if header != COLUMNS:
        raise ValueError(
            f"{file}: the columns are {', '.join(header) or '(none)'}; expected {', '.join(COLUMNS)}"
        )
    found = []
    for values in lines:
        try:
            found.append(_read(values))
        except ValueError as error:
            raise ValueError(f"{file}, line {lines.line_num}: {error}") from error
    return tuple(found)


def _read(values: Sequence[str]) -> Published:
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
            f"attack {row['attack']} with poison_ratio {ratio:g}; expected ratio 0 for none and only for it"
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
    )


def _number(row: Mapping[str, str], name: str, most: float) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise ValueError(f'{name} is "{row[name]}", expected a number from 0 to {most:g}')
    return value
