"""A stage of a plan: one unit of work with the key of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One unit of work: train the surrogate of an attack, make a poison, purify it, or train a victim.

    Attributes:
        kind: ``surrogate``, ``poison``, ``purify`` or ``train``.
        key: sha256 that names the result.
        inputs: keys of the stages whose results it reads.
        payload: plain JSON with everything ``run_stage`` needs. A train stage's ``payload["cell"]`` holds the fields of
            its ``Record`` that are known beforehand.
        label: what people read, such as ``purify dvae on em``.
        cost: estimated passes of the victim over the training set, for ordering and for the time left.
    """

    kind: str
    key: str
    inputs: tuple[str, ...]
    payload: Mapping[str, Any]
    label: str
    cost: float = 1.0
