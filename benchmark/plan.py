"""From a suite to cells, and from cells to stages. Pure: nothing is loaded, run or written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from benchmark.protocol import Protocol, get_protocol
from benchmark.registry import Card, Registry
from benchmark.spec import Spec, digest
from benchmark.suite import Suite, resolve

# Part of every key. Raise it when train.py, loader.py or data.py may change numbers.
CORE_VERSION = 1
ANCHOR = "none"  # the attack and the defense that change nothing: clean data, and no defense


@dataclass(frozen=True)
class Stage:
    """One unit of work: make a poison, purify it, or train a victim.

    Attributes:
        kind: ``poison``, ``purify`` or ``train``.
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
        parts = [str(self.dataset), str(self.attack), str(self.defense), self.victim, self.protocol.name, f"seed {self.seed}"]
        return " / ".join(parts + ([f"ratio {self.ratio:g}"] if self.ratio != 1 else []))


@dataclass(frozen=True)
class Skip:
    """A combination that is left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All cells of a suite and the stages that make them, inputs before what reads them."""

    suite: Suite
    cells: tuple[Cell, ...]
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]


def make_plan(suite: Suite, registry: Registry, fingerprint: Callable[[Spec], str], precision: str) -> Plan:
    """Expands a suite.

    Args:
        suite: the axes.
        registry: knows the methods.
        fingerprint: maps a data set's spec to the sha256 of its content.
        precision: what ``auto`` means on the machine that will run, ``fp32`` or ``bf16``.

    Raises:
        ValueError: for names or parameters that ``load_suite`` would have refused.
    """
    builder = _Builder(suite, registry, precision)
    for dataset_text in suite.datasets:
        dataset = resolve(suite, "dataset", dataset_text, registry)
        data = {"fingerprint": fingerprint(dataset), "subset": _subset(dataset)}
        for attack_text, ratio, defense_text, victim, protocol_name, seed in product(
            suite.attacks, suite.ratios, suite.defenses, suite.victims, suite.protocols, suite.seeds
        ):
            attack = resolve(suite, "attack", attack_text, registry)
            defense = resolve(suite, "defense", defense_text, registry)
            protocol = get_protocol(protocol_name).with_values(suite.protocol_values)
            builder.add(dataset, data, attack, ratio, defense, victim, protocol, seed)
    return Plan(suite, tuple(builder.cells), tuple(builder.stages.values()), tuple(builder.skips))


class _Builder:
    """Collects cells and the stages they share."""

    def __init__(self, suite: Suite, registry: Registry, precision: str) -> None:
        self.suite, self.registry, self.precision = suite, registry, precision
        self.cells: list[Cell] = []
        self.stages: dict[str, Stage] = {}
        self.skips: list[Skip] = []

    def add(
        self, dataset: Spec, data: Mapping[str, Any], attack: Spec, ratio: float, defense: Spec, victim: str, protocol: Protocol, seed: int
    ) -> None:
        what = f"{dataset} / {attack} at ratio {ratio:g} / {defense} / {victim} / {protocol.name} / seed {seed}"
        if attack.name == ANCHOR and ratio != max(self.suite.ratios):
            self.skips.append(Skip(what, "clean data are the same at every poison ratio; they run once"))
            return
        if attack.name != ANCHOR and ratio == 0:
            self.skips.append(Skip(what, f'ratio 0 is clean data; the attack "{ANCHOR}" covers it'))
            return
        if attack.name == ANCHOR:
            ratio = 1.0
        precision = self._precision(self.suite.precision)
        poison = self._poison(dataset, data, attack, precision)
        before, stages = poison, [poison.key]
        card = self.registry.card("defense", defense.name)
        if card.purifies:
            before = self._purify(dataset, data, poison, attack, ratio, defense, card, precision)
            stages.append(before.key)
        train = self._train(dataset, data, before, poison, attack, ratio, defense, card, victim, protocol, seed)
        if any(cell.key == train.key for cell in self.cells):
            self.skips.append(Skip(what, "the suite names this cell twice; it runs once"))
            return
        self.stages[train.key] = train
        self.cells.append(Cell(dataset, ratio, attack, defense, victim, protocol, seed, train.key, (*stages, train.key)))

    def _poison(self, dataset: Spec, data: Mapping[str, Any], attack: Spec, precision: str) -> Stage:
        card = self.registry.card("attack", attack.name)
        identity = {"stage": "poison", "core": CORE_VERSION, "data": data, "attack": _method(attack, card)}
        return self._shared(
            "poison",
            {**identity, "seed": self.suite.craft_seed, "precision": precision},
            (),
            {
                "dataset": {**_text(dataset), "fingerprint": data["fingerprint"]},
                "attack": _text(attack),
                "precision": precision,
                "seed_axes": ["poison", data, attack.name, self.suite.craft_seed],
            },
            f"poison {attack}",
            0.05 + _effort(attack, card),
        )

    def _purify(
        self, dataset: Spec, data: Mapping[str, Any], poison: Stage, attack: Spec, ratio: float, defense: Spec, card: Card, precision: str
    ) -> Stage:
        identity = {"stage": "purify", "core": CORE_VERSION, "poison": poison.key, "ratio": ratio, "defense": _method(defense, card)}
        return self._shared(
            "purify",
            {**identity, "seed": self.suite.craft_seed, "precision": precision},
            (poison.key,),
            {
                "dataset": {**_text(dataset), "fingerprint": data["fingerprint"]},
                "defense": _text(defense),
                "poison": poison.key,
                "ratio": ratio,
                "mix_axes": ["mix", data, self.suite.craft_seed],
                "precision": precision,
                "seed_axes": ["purify", data, defense.name, self.suite.craft_seed],
            },
            f"purify {attack} with {defense}",
            0.05 + _effort(defense, card),
        )

    def _train(
        self,
        dataset: Spec,
        data: Mapping[str, Any],
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
        precision = self._precision(protocol.precision)
        settings = {name: value for name, value in asdict(protocol).items() if name not in ("name", "summary", "precision")}
        identity = {
            "stage": "train",
            "core": CORE_VERSION,
            "data": data,
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
            "dataset": str(dataset),
            "attack": str(attack),
            "defense": str(defense),
            "victim": victim,
            "protocol": protocol.name,
            "ratio": ratio,
            "seed": seed,
            "craft_seed": self.suite.craft_seed,
            "precision": precision,
            "needs": list(card.needs),
            "dataset_spec": {"name": dataset.name, "fingerprint": data["fingerprint"], **data["subset"]},
            "attack_spec": _method(attack, self.registry.card("attack", attack.name)),
            "defense_spec": _method(defense, card),
            "protocol_spec": settings,
        }
        payload = {
            "cell": cell,
            "dataset": {**_text(dataset), "fingerprint": data["fingerprint"]},
            "defense": _text(defense),
            "victim": victim,
            "protocol": {"name": protocol.name, **settings},
            "precision": precision,
            "poison": poison.key,
            "purify": before.key if before is not poison else None,
            "mix_axes": ["mix", data, self.suite.craft_seed],
            "ratio": ratio,
            "seed_axes": ["train", data, seed],
        }
        extra = _effort(defense, card) if card.trains and not card.purifies else 0.0
        label = f"train {attack} + {defense}" + (f", seed {seed}" if len(self.suite.seeds) > 1 else "")
        inputs = tuple(dict.fromkeys((before.key, poison.key)))  # the record holds the poison's facts, purified or not
        return Stage("train", cell["key"], inputs, payload, label, protocol.epochs * (1 + extra))

    def _shared(
        self, kind: str, identity: Mapping[str, Any], inputs: tuple[str, ...], payload: Mapping[str, Any], label: str, cost: float
    ) -> Stage:
        key = digest(identity)
        if key not in self.stages:
            self.stages[key] = Stage(kind, key, inputs, payload, label, cost)
        return self.stages[key]

    def _precision(self, wanted: str) -> str:
        if self.suite.precision != "auto":
            wanted = self.suite.precision
        return self.precision if wanted == "auto" else wanted


def _subset(dataset: Spec) -> dict[str, Any]:
    return {name: dataset.params[name] for name in ("train_per_class", "test_per_class", "subset_seed")}


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
