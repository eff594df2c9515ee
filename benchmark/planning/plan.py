"""From a suite to cells, and from cells to stages. Pure: nothing is loaded, run or written here.

What the content of data sets and files is, it asks two functions that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.catalogue.registry import Card, Registry
from benchmark.catalogue.spec import ANCHOR, SUBSET_PARAMS, Spec
from benchmark.keys import digest
from benchmark.planning.stage import Stage
from benchmark.planning.suite import Suite, resolve
from benchmark.storage.files import sha256

# Part of every key. Raise it when train.py, loader.py or data.py may change numbers.
CORE_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """One point of the grid, with the key of its record and the keys of the stages behind it."""

    dataset: Spec
    ratio: float
    attack: Spec
    defense: Spec
    victim: str
    protocol: Protocol
    seed: int
    key: str
    stages: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            str(self.dataset),
            str(self.attack),
            str(self.defense),
            self.victim,
            self.protocol.name,
            f"seed {self.seed}",
        ]
        return " / ".join(parts + ([f"ratio {self.ratio:g}"] if self.ratio != 1 else []))


@dataclass(frozen=True)
class Skip:
    """A combination that is left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class _Images:
    """What a cell's images are made from: the data set, and how chance and numbers enter."""

    dataset: Spec
    data: Mapping[str, Any]  # the content of the data set and the subset taken, as they enter keys
    craft_seed: int
    precision: str

    def text(self) -> dict[str, Any]:
        return {**_text(self.dataset), "fingerprint": self.data["fingerprint"]}


@dataclass(frozen=True)
class Plan:
    """All cells of a suite and the stages that make them, inputs before what reads them."""

    suite: Suite
    cells: tuple[Cell, ...]
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]


def make_plan(
    suite: Suite,
    registry: Registry,
    fingerprint: Callable[[Spec], str],
    precision: str,
    content: Callable[[str], str] = sha256,
) -> Plan:
    """Expands a suite.

    Args:
        suite: the axes.
        registry: knows the methods.
        fingerprint: maps a data set's spec to the sha256 of its content.
        precision: what ``auto`` means on the machine that will run, ``fp32`` or ``bf16``.
        content: maps the path of a file that an attack reads to the sha256 of its content.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for names or parameters that ``load_suite`` would have refused.
    """
    builder = _Builder(suite, registry, precision, cache(content))
    for dataset_text in suite.datasets:
        dataset = resolve(suite, "dataset", dataset_text, registry)
        data = {"fingerprint": fingerprint(dataset), "subset": _subset(dataset)}
        for attack_text, ratio, defense_text, victim, protocol_name, seed in product(
            suite.attacks, suite.ratios, suite.defenses, suite.victims, suite.protocols, suite.seeds
        ):
            attack = resolve(suite, "attack", attack_text, registry)
            defense = resolve(suite, "defense", defense_text, registry)
            protocol = get_protocol(protocol_name).with_values(suite.protocol_values)
            images = _Images(
                dataset, data, suite.craft_seed_of(seed), builder.resolved(suite.precision)
            )
            builder.add(images, attack, ratio, defense, victim, protocol, seed)
    return Plan(suite, tuple(builder.cells), tuple(builder.stages.values()), tuple(builder.skips))


class _Builder:
    """Collects cells and the stages they share."""

    def __init__(
        self, suite: Suite, registry: Registry, precision: str, content: Callable[[str], str]
    ) -> None:
        self.suite, self.registry, self.precision, self.content = (
            suite,
            registry,
            precision,
            content,
        )
        self.cells: list[Cell] = []
        self.stages: dict[str, Stage] = {}
        self.skips: list[Skip] = []

    def add(
        self,
        images: _Images,
        attack: Spec,
        ratio: float,
        defense: Spec,
        victim: str,
        protocol: Protocol,
        seed: int,
    ) -> None:
        what = f"{images.dataset} / {attack} at ratio {ratio:g} / {defense} / {victim} / {protocol.name} / seed {seed}"
        if attack.name == ANCHOR and ratio != max(self.suite.ratios):
            self.skips.append(
                Skip(what, "clean data are the same at every poison ratio; they run once")
            )
            return
        if attack.name != ANCHOR and ratio == 0:
            self.skips.append(Skip(what, f'ratio 0 is clean data; the attack "{ANCHOR}" covers it'))
            return
        if attack.name == ANCHOR:
            ratio = 1.0
        poison = self._poison(images, attack)
        before, stages = poison, [*self._behind(poison), poison.key]
        card = self.registry.card("defense", defense.name)
        if card.purifies:
            before = self._purify(images, poison, attack, ratio, defense, card)
            stages.append(before.key)
        train = self._train(
            images, before, poison, attack, ratio, defense, card, victim, protocol, seed
        )
        if any(cell.key == train.key for cell in self.cells):
            self.skips.append(Skip(what, "the suite names this cell twice; it runs once"))
            return
        self.stages[train.key] = train
        self.cells.append(
            Cell(
                images.dataset,
                ratio,
                attack,
                defense,
                victim,
                protocol,
                seed,
                train.key,
                (*stages, train.key),
            )
        )

    def _behind(self, stage: Stage) -> list[str]:
        """Keys of all stages that ``stage`` depends on, inputs before what reads them."""
        return list(
            dict.fromkeys(
                key for other in stage.inputs for key in (*self._behind(self.stages[other]), other)
            )
        )

    def _poison(self, images: _Images, attack: Spec) -> Stage:
        """The stage of an attack, or of the last of several; each changes what the one before it made."""
        *before, last = attack.parts()
        stage: Stage | None = None
        for part in before:
            stage = self._poison_once(images, part, stage)
        return self._poison_once(images, last, stage)

    def _poison_once(self, images: _Images, attack: Spec, before: Stage | None) -> Stage:
        card = self.registry.card("attack", attack.name)
        files = self._files(attack, card)
        what = _method(
            attack.with_params({**attack.params, **files}), card
        )  # what a file holds counts, not where it lies
        identity = {"stage": "poison", "core": CORE_VERSION, "data": images.data, "attack": what}
        surrogate = self._surrogate(images, attack, card) if card.trained_surrogate else None
        if surrogate is not None:
            identity["surrogate"] = surrogate.key
        if before is not None:
            identity["on"] = before.key
        return self._shared(
            "poison",
            {**identity, "seed": images.craft_seed, "precision": images.precision},
            tuple(stage.key for stage in (surrogate, before) if stage is not None),
            {
                "dataset": images.text(),
                "attack": _text(attack),
                "files": files,
                "surrogate": surrogate.key if surrogate is not None else None,
                "on": before.key if before is not None else None,
                "precision": images.precision,
                "seed_axes": ["poison", images.data, attack.name, images.craft_seed],
            },
            f"poison {attack}"
            + (f" on {before.payload['attack']['label']}" if before is not None else "")
            + self._crafted(images),
            0.05 + _effort(attack, card),
        )

    def _surrogate(self, images: _Images, attack: Spec, card: Card) -> Stage:
        """The stage of an attack's trained surrogate. Attacks share it if all that decides it is the same."""
        deciding = {name: attack.params[name] for name in card.trained_surrogate}
        protocol = get_protocol(str(deciding["surrogate_protocol"]))
        own = (
            {"attack": _method(attack.with_params(deciding), card)}
            if "augment_surrogate" in card.overrides
            else {}
        )
        return self._shared(
            "surrogate",
            {
                "stage": "surrogate",
                "core": CORE_VERSION,
                "data": images.data,
                "params": deciding,
                "protocol": protocol.settings(),
                **own,
                "seed": images.craft_seed,
                "precision": images.precision,
            },
            (),
            {
                "dataset": images.text(),
                "attack": _text(attack),
                "precision": images.precision,
                "seed_axes": ["surrogate", images.data, images.craft_seed],
            },
            f"surrogate {deciding['surrogate']} of {attack}" + self._crafted(images),
            float(deciding.get("surrogate_epochs") or protocol.epochs),
        )

    def _purify(
        self, images: _Images, poison: Stage, attack: Spec, ratio: float, defense: Spec, card: Card
    ) -> Stage:
        identity = {
            "stage": "purify",
            "core": CORE_VERSION,
            "poison": poison.key,
            "ratio": ratio,
            "defense": _method(defense, card),
        }
        return self._shared(
            "purify",
            {**identity, "seed": images.craft_seed, "precision": images.precision},
            (poison.key,),
            {
                "dataset": images.text(),
                "defense": _text(defense),
                "poison": poison.key,
                "ratio": ratio,
                "mix_axes": ["mix", images.data, images.craft_seed],
                "precision": images.precision,
                "seed_axes": ["purify", images.data, defense.name, images.craft_seed],
            },
            f"purify {attack} with {defense}" + self._crafted(images),
            0.05 + _effort(defense, card),
        )

    def _train(
        self,
        images: _Images,
        before: Stage,
        poison: Stage,
        attack: Spec,
        ratio: float,
        defense: Spec,
        card: Card,
        victim: str,
        protocol: Protocol,
        seed: int,
    ) -> Stage:
        precision = self.resolved(protocol.precision)
        settings = protocol.settings()
        identity = {
            "stage": "train",
            "core": CORE_VERSION,
            "data": images.data,
            "input": before.key,
            "ratio": ratio,
            "defense": _method(defense, card),
            "victim": victim,
            "protocol": settings,
            "seed": seed,
            "precision": precision,
        }
        cell: dict[str, Any] = {
            "key": digest(identity),
            "dataset": str(images.dataset),
            "attack": str(attack),
            "defense": str(defense),
            "victim": victim,
            "protocol": protocol.name,
            "ratio": ratio,
            "seed": seed,
            "craft_seed": images.craft_seed,
            "precision": precision,
            "needs": list(card.needs),
            "dataset_spec": {
                "name": images.dataset.name,
                "fingerprint": images.data["fingerprint"],
                **images.data["subset"],
            },
            "dataset_params": dict(images.dataset.params),
            "attack_spec": self._attack_spec(attack),
            "defense_spec": _method(defense, card),
            "protocol_spec": settings,
        }
        payload = {
            "cell": cell,
            "dataset": images.text(),
            "defense": _text(defense),
            "victim": victim,
            "protocol": asdict(protocol),
            "precision": precision,
            "poison": poison.key,
            "purify": before.key if before is not poison else None,
            "mix_axes": ["mix", images.data, images.craft_seed],
            "ratio": ratio,
            "seed_axes": ["train", images.data, seed],
        }
        extra = _effort(defense, card) if card.trains and not card.purifies else 0.0
        label = f"train {attack} + {defense}" + (
            f", seed {seed}" if len(self.suite.seeds) > 1 else ""
        )
        inputs = tuple(
            dict.fromkeys((before.key, poison.key))
        )  # the record holds the poison's facts, purified or not
        return Stage("train", cell["key"], inputs, payload, label, protocol.epochs * (1 + extra))

    def _files(self, attack: Spec, card: Card) -> dict[str, str]:
        """sha256 of each file that the attack reads, by parameter."""
        return {
            name: self.content(str(attack.params[name]))
            for name in card.files
            if attack.params[name]
        }

    def _attack_spec(self, attack: Spec) -> dict[str, Any]:
        card = self.registry.card("attack", attack.name)
        files = self._files(attack, card)
        own = {**_method(attack, card), **({"files": files} if files else {})}
        return own if attack.then is None else {**own, "then": self._attack_spec(attack.then)}

    def _shared(
        self,
        kind: str,
        identity: Mapping[str, Any],
        inputs: tuple[str, ...],
        payload: Mapping[str, Any],
        label: str,
        cost: float,
    ) -> Stage:
        key = digest(identity)
        if key not in self.stages:
            self.stages[key] = Stage(kind, key, inputs, payload, label, cost)
        return self.stages[key]

    def _crafted(self, images: _Images) -> str:
        """What tells the images of one victim seed from those of another, where they are not the same."""
        return (
            f", craft seed {images.craft_seed}"
            if self.suite.craft_seed == "seed" and len(self.suite.seeds) > 1
            else ""
        )

    def resolved(self, wanted: str) -> str:
        """What a precision means for this suite on this machine."""
        if self.suite.precision != "auto":
            wanted = self.suite.precision
        return self.precision if wanted == "auto" else wanted


def _subset(dataset: Spec) -> dict[str, Any]:
    return {name: dataset.params[name] for name in SUBSET_PARAMS}


def _method(spec: Spec, card: Card) -> dict[str, Any]:
    return {"name": spec.name, "version": card.version, "params": dict(spec.params)}


def _text(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "params": dict(spec.params), "label": str(spec)}


def _effort(spec: Spec, card: Card) -> float:
    total = 0.0
    for name, passes in card.effort.items():
        value = spec.params.get(name, 1.0) if name else 1.0
        total += passes * value if isinstance(value, (int, float)) else 0.0
    return total
