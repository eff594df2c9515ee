"""A made-up source of published numbers, and measured records with counterparts of some of them."""

from __future__ import annotations

import math
from typing import Any

from benchmark.analysis.counterparts import Counterparts
from benchmark.analysis.published import Published, load_names
from benchmark.storage.record import Record
from support.reports import record


def published(attack: str, defense: str, acc: float, **values: Any) -> Published:
    names = load_names()
    fields: dict[str, Any] = {
        "source": "src2020",
        "dataset": "toy",
        "victim": "net",
        "attack": attack,
        "norm": "linf",
        "budget": "8/255",
        "ratio": 0.0 if attack == "none" else 1.0,
        "defense": defense,
        "mean": acc,
        "std": math.nan,
        "epochs": 60,
        "notes": "",
        "our_attack": names.attacks.get(attack),
        "our_defense": names.defenses.get(defense),
    }
    return Published(**fields | values)


ROWS = [
    published("none", "none", 0.95),
    published("em", "none", 0.2, std=0.01),
    published("em", "none", 0.22, notes="Table 9; other images"),
    published("em", "jpeg10", 0.8),
    published("em_classwise", "jpeg10", 0.7),
    published("em", "dvae", 0.9),
    published("em", "at", 0.85),
    published("rem", "none", 0.3),
    published("em", "none", 0.5, ratio=0.5),
    published("em", "none", 0.6, victim="big"),
]


def measured(attack: str, defense: str, *accs: float | None, **values: Any) -> list[Record]:
    specs = {
        "dataset_spec": {"name": "toy"},
        "attack_spec": {"name": "em", "params": {"granularity": "sample", "eps": 8 / 255}}
        if attack == "em"
        else {"name": attack},
        "defense_spec": {
            "none": {"name": "none"},
            "jpeg": {"name": "jpeg", "params": {"quality": 10, "test": False}},
            "jpeg[quality=30]": {"name": "jpeg", "params": {"quality": 30, "test": False}},
            "dvae": {"name": "dvae", "params": {"width": 64}},
        }.get(defense, {}),
        "protocol_spec": {"epochs": 60},
    }
    return [
        record(attack, defense, acc, seed=seed, **(specs | values)) for seed, acc in enumerate(accs)
    ]


def records() -> list[Record]:
    made = [
        *measured("none", "none", 0.9),
        *measured("em", "none", 0.1, 0.12),
        *measured("em", "jpeg", 0.75),
    ]
    return [*made, *measured("em", "jpeg[quality=30]", 0.4), *measured("em", "dvae", None)]


def only(counterparts: list[Counterparts]) -> Counterparts:
    assert len(counterparts) == 1
    return counterparts[0]
