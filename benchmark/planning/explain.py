"""Say why a cell would run: in what it differs from the nearest result that is there. Pure.

Results are compared by their identities, the mappings whose digests are their keys.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from benchmark.catalogue.spec import SUBSET_PARAMS, format_value, split_list
from benchmark.planning.jobs import Identity
from benchmark.planning.plan import Cell, Plan
from benchmark.planning.stage import Stage
from benchmark.storage.record import Record

REFERENCES = ("surrogate", "on", "poison", "input")  # entries that are keys of other results
SHOWN_NEAR = 5  # cells that are listed where none is the one asked for
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Known:
    """A result in the store: its key, what people call it, and what decided it.

    ``images`` says of a record what its images were made with, for when they are gone. ``whole`` is
    False for a result from before identities were stored, which is compared in what it says.
    """

    key: str
    label: str
    identity: Identity
    images: Identity = field(default_factory=dict)
    whole: bool = True


@dataclass(frozen=True)
class Reason:
    """Why one stage would run.

    Attributes:
        label: of the stage.
        state: ``cached``; ``differs`` from the nearest result of the same methods; or ``new``, for
            which there is none.
        nearest: label of the nearest result.
        differences: such as ``protocol.epochs: 2 -> 3``, the stored value first. Long digests are
            named and not shown: ``data.fingerprint``.
    """

    label: str
    state: Literal["cached", "differs", "new"]
    nearest: str = ""
    differences: tuple[str, ...] = ()


def find_cells(plan: Plan, text: str) -> list[Cell]:
    """The cells that people mean by ``em + dvae`` or ``em + dvae, seed 1``.

    Args:
        plan: that holds them.
        text: attack and defense as the plan shows them, and any other axes after commas: a seed, a
            ratio, a victim, a protocol or a data set.

    Raises:
        ValueError: if there is no such cell; the message lists near ones.
    """
    pair, *others = split_list(text) or [""]
    named: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        named.setdefault(f"{cell.attack} + {cell.defense}", []).append(cell)
    cells = next((found for name, found in named.items() if _close(name) == _close(pair)), None)
    if cells is None:
        near = get_close_matches(pair, list(named), n=SHOWN_NEAR, cutoff=0.6)
        listed = ", ".join(f'"{name}"' for name in near or [*named][:SHOWN_NEAR])
        hint = f"did you mean {listed}?" if near else f"expected one such as {listed}"
        raise ValueError(f'there is no cell "{pair}" in {plan.suite.name}; {hint}')
    for other in others:
        chosen = [cell for cell in cells if other in cell.axes().values()]
        if not chosen:
            there = dict.fromkeys(
                value
                for cell in cells
                for axis, value in cell.axes().items()
                if axis not in ("attack", "defense")
            )
            raise ValueError(f'"{pair}" has no cell with "{other}"; it has {", ".join(there)}')
        cells = chosen
    return cells


def explain(
    cell: Cell, stages: Mapping[str, Stage], done: Collection[str], known: Sequence[Known]
) -> list[Reason]:
    """Why the stages of a cell would run, inputs before what reads them.

    Args:
        cell: one of the plan.
        stages: key -> stage, of the plan.
        done: keys of the results that are there.
        known: the results to compare with, of all kinds.

    Returns:
        A reason for each stage that is needed. Of a cell whose record is there, that is the last
        one alone.
    """
    identities: dict[str, Identity] = {result.key: result.identity for result in known}
    identities |= {key: stages[key].job.identity() for key in cell.stages}
    candidates = [(result, _flat(_whole(result, identities))) for result in known]
    reasons = []
    for key in _needed(cell, stages, done):
        if key in done:
            reasons.append(Reason(stages[key].label, "cached"))
        else:
            reasons.append(_nearest(stages[key], identities, candidates))
    return reasons


def known_record(record: Record) -> Known:
    """A record, compared by its identity, or by its fields if it was made before it had one."""
    label = f"{record.attack} + {record.defense}, seed {record.seed}"
    data = {
        "fingerprint": record.dataset_spec.get("fingerprint"),
        "subset": {name: record.dataset_spec.get(name) for name in SUBSET_PARAMS},
    }
    images = _poison(record.attack_spec, {"data": data, "seed": record.craft_seed})
    defense = dict(record.defense_spec)
    if "purify" in record.artifacts:
        images = {"stage": "purify", "poison": images, "defense": defense, "ratio": record.ratio}
    if record.identity:
        return Known(record.key, label, record.identity, images)
    identity = {
        "stage": "train",
        "data": data,
        "input": images,
        "ratio": record.ratio,
        "defense": defense,
        "victim": record.victim,
        "protocol": dict(record.protocol_spec),
        "seed": record.seed,
        "precision": record.precision,
    }
    return Known(record.key, label, identity, images, whole=False)


def known_artifact(key: str, manifest: Mapping[str, Any]) -> Known | None:
    """An artifact by its manifest; None if that says nothing of what decided it."""
    label = str(manifest.get("label", key))
    if isinstance(identity := manifest.get("identity"), Mapping):
        return Known(key, label, identity)
    if not isinstance(method := manifest.get("method"), Mapping):
        return None
    kind = str(method.get("kind"))
    about = {name: value for name, value in method.items() if name != "kind"}
    return Known(key, label, {"stage": manifest.get("kind"), kind: about}, whole=False)


def _poison(attack: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a recorded attack's poison, as far as a record tells it."""
    found: dict[str, Any] = {}
    part: Mapping[str, Any] | None = attack
    while part:
        own = {name: value for name, value in part.items() if name not in ("then", "files")}
        if files := part.get("files"):
            own["params"] = {**own.get("params", {}), **files}
        before = {"on": found} if found else {}
        found = {"stage": "poison", **common, "attack": own, **before}
        part = part.get("then")
    return found


def _needed(cell: Cell, stages: Mapping[str, Stage], done: Collection[str]) -> list[str]:
    """The stages of a cell that run or whose results are read, in the plan's order."""
    needed = {cell.key}
    for key in reversed(cell.stages):
        if key in needed and key not in done:
            needed.update(stages[key].inputs)
    return [key for key in cell.stages if key in needed]


def _nearest(
    stage: Stage,
    identities: Mapping[str, Identity],
    candidates: Iterable[tuple[Known, Mapping[str, Any]]],
) -> Reason:
    """Compare a stage with the result that differs in the fewest entries, inputs included.

    Only results of the same methods are compared: parameters of others mean other things.
    """
    identity = stage.job.identity()
    wanted = _flat(_expanded(identity, identities))
    alike = [
        (len(_unlike(wanted, flat, known.whole)), number, known, flat)
        for number, (known, flat) in enumerate(candidates)
        if flat.get("stage") == stage.kind and _names(flat).items() <= _names(wanted).items()
    ]
    if not alike:
        return Reason(stage.label, "new")
    _, _, known, flat = min(alike, key=lambda item: item[:2])
    differences: dict[str, None] = {}
    for name in _unlike(wanted, flat, known.whole):
        first = name.partition(".")[0]
        if first in REFERENCES and first in identity:
            differences[f"{first}: see above"] = None
        else:
            differences[_difference(name, flat, wanted)] = None
    if not differences:
        differences["something that older results do not say"] = None
    return Reason(stage.label, "differs", known.label, tuple(differences))


def _names(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The names of the attacks and of the defense in an expanded identity."""
    return {
        name: value
        for name, value in flat.items()
        if name.endswith(("attack.name", "defense.name"))
    }


def _whole(known: Known, identities: Mapping[str, Identity]) -> Identity:
    """The identity of a result with those of its inputs in it."""
    found = dict(known.identity)
    if known.images and isinstance(key := found.get("input"), str) and key not in identities:
        found["input"] = known.images
    return _expanded(found, identities)


def _expanded(identity: Identity, identities: Mapping[str, Identity]) -> Identity:
    """An identity with the keys of other results replaced by their identities, where known."""
    found = dict(identity)
    for name in REFERENCES:
        value = found.get(name)
        if isinstance(value, str) and value in identities:
            found[name] = _expanded(identities[value], identities)
    return found


def _flat(identity: Identity, prefix: str = "") -> dict[str, Any]:
    """Nested mappings with their keys joined by dots: ``attack.version``, ``protocol.epochs``."""
    found: dict[str, Any] = {}
    for name, value in identity.items():
        if name == "victim" and isinstance(value, str):
            value = {"name": value, "version": 1}  # what a name alone stands for
        if isinstance(value, Mapping):
            found |= _flat(value, prefix if name == "params" else f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _unlike(wanted: Mapping[str, Any], stored: Mapping[str, Any], whole: bool) -> list[str]:
    """The entries in which two results differ."""
    missing = object()
    names = {**wanted, **stored} if whole else stored
    return [name for name in names if wanted.get(name, missing) != stored.get(name, missing)]


def _difference(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    before, after = (
        format_value(values[name]) if name in values else "unset" for values in (stored, wanted)
    )
    if any(_DIGEST.fullmatch(text) for text in (before, after)):
        return name
    return f"{name}: {before} -> {after}"


def _close(text: str) -> str:
    """Without blanks around plus signs."""
    return re.sub(r"\s*\+\s*", "+", text.strip())
