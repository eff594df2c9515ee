"""Say why a cell would run: how it differs from the nearest result in the store.

Results are compared by their identities, the mappings whose digests are their keys. The module is
pure: it reads and writes no files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from benchmark.catalogue.spec import LATER_SUBSET_PARAMS, SUBSET_PARAMS, format_value, split_list
from benchmark.planning.jobs import Identity
from benchmark.planning.plan import Cell, Plan
from benchmark.planning.stage import Stage
from benchmark.storage.record import Record

REFERENCES = ("surrogate", "on", "poison", "input")  # entries that are keys of other results
SHOWN_NEAR = 5  # how many near cells are listed if the wanted one does not exist
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Known:
    """A result in the store.

    Attributes:
        key: its key.
        label: its name for messages.
        identity: everything that decided it, as far as known.
        images: for a record, the identity of its images, in case they are no longer in the store.
        whole: False for a result from before identities were stored; only its known entries are
            compared.
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
        state: ``cached``; ``differs`` from the nearest result of the same methods; or ``new`` if
            there is no such result.
        nearest: label of the nearest result.
        differences: such as ``protocol.epochs: 2 -> 3``, with the stored value first. An entry that
            is a digest is named without its values: ``data.fingerprint``.
    """

    label: str
    state: Literal["cached", "differs", "new"]
    nearest: str = ""
    differences: tuple[str, ...] = ()


def find_cells(plan: Plan, text: str) -> list[Cell]:
    """The cells that a text such as ``em + dvae`` or ``em + dvae, seed 1`` names.

    Args:
        plan: the plan to search.
        text: attack and defense as the plan shows them, and other axes after commas: a seed, a
            ratio, a victim, a protocol or a data set.

    Raises:
        ValueError: if there is no such cell; the message lists near ones.
    """
    pair, *others = split_list(text) or [""]
    named: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        named.setdefault(f"{cell.attack} + {cell.defense}", []).append(cell)
    cells = next((group for name, group in named.items() if _close(name) == _close(pair)), None)
    if cells is None:
        near = get_close_matches(pair, list(named), n=SHOWN_NEAR, cutoff=0.6)
        listed = ", ".join(f'"{name}"' for name in near or [*named][:SHOWN_NEAR])
        hint = f"did you mean {listed}?" if near else f"expected one such as {listed}"
        raise ValueError(f'there is no cell "{pair}" in {plan.suite.name}; {hint}')
    for other in others:
        chosen = [cell for cell in cells if other in cell.axes().values()]
        if not chosen:
            known = dict.fromkeys(
                value
                for cell in cells
                for axis, value in cell.axes().items()
                if axis not in ("attack", "defense")
            )
            raise ValueError(f'"{pair}" has no cell with "{other}"; it has {", ".join(known)}')
        cells = chosen
    return cells


def explain(
    cell: Cell, stages: Mapping[str, Stage], done: Collection[str], known: Sequence[Known]
) -> list[Reason]:
    """Say why the stages of a cell would run, inputs before the stages that read them.

    Args:
        cell: a cell of the plan.
        stages: the stages of the plan by key.
        done: keys of the results in the store.
        known: the results to compare with, of all kinds.

    Returns:
        A reason for each stage that is needed. A cell whose record is in the store needs only its
        last stage.
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
    """A record as ``Known``, by its identity or, if it has none, by its other fields."""
    label = f"{record.attack} + {record.defense}, seed {record.seed}"
    data = {
        "fingerprint": record.dataset_spec.get("fingerprint"),
        "subset": {
            name: record.dataset_spec.get(name)
            for name in SUBSET_PARAMS
            if name in record.dataset_spec or name not in LATER_SUBSET_PARAMS
        },
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
    """An artifact as ``Known``; None if its manifest does not say what decided it."""
    label = str(manifest.get("label", key))
    if isinstance(identity := manifest.get("identity"), Mapping):
        return Known(key, label, identity)
    if not isinstance(method := manifest.get("method"), Mapping):
        return None
    kind = str(method.get("kind"))
    about = {name: value for name, value in method.items() if name != "kind"}
    return Known(key, label, {"stage": manifest.get("kind"), kind: about}, whole=False)


def _poison(attack: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a recorded attack's poison, as far as the record holds it."""
    identity: dict[str, Any] = {}
    part: Mapping[str, Any] | None = attack
    while part:
        own = {name: value for name, value in part.items() if name not in ("then", "files")}
        if files := part.get("files"):
            own["params"] = {**own.get("params", {}), **files}
        before = {"on": identity} if identity else {}
        identity = {"stage": "poison", **common, "attack": own, **before}
        part = part.get("then")
    return identity


def _needed(cell: Cell, stages: Mapping[str, Stage], done: Collection[str]) -> list[str]:
    """The keys of a cell's stages that run or whose results are read, in the plan's order."""
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

    Only results of the same methods are compared, since parameters of other methods have other
    meanings.
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
    """The identity of a result, in which the identities of its inputs replace their keys."""
    identity = dict(known.identity)
    if known.images and isinstance(key := identity.get("input"), str) and key not in identities:
        identity["input"] = known.images
    return _expanded(identity, identities)


def _expanded(identity: Identity, identities: Mapping[str, Identity]) -> Identity:
    """Replace the keys of other results in an identity by their identities, as far as known."""
    expanded = dict(identity)
    for name in REFERENCES:
        value = expanded.get(name)
        if isinstance(value, str) and value in identities:
            expanded[name] = _expanded(identities[value], identities)
    return expanded


def _flat(identity: Identity, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; dots join the keys: ``attack.version``, ``protocol.epochs``."""
    entries: dict[str, Any] = {}
    for name, value in identity.items():
        if name == "victim" and isinstance(value, str):
            value = {"name": value, "version": 1}  # a name alone means version 1
        if isinstance(value, Mapping):
            entries |= _flat(value, prefix if name == "params" else f"{prefix}{name}.")
        else:
            entries[f"{prefix}{name}"] = value
    return entries


def _unlike(wanted: Mapping[str, Any], stored: Mapping[str, Any], whole: bool) -> list[str]:
    """The names of the entries in which two results differ."""
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
    """The text without spaces around plus signs."""
    return re.sub(r"\s*\+\s*", "+", text.strip())
