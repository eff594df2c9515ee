"""Multiply the axes of a suite to cells, and collect the stages that the cells need.

The planner runs no stage and writes no file. It learns the content of data sets and files from two
functions that the caller passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.catalogue.registry import Card, Registry
from benchmark.catalogue.spec import ANCHOR, Spec
from benchmark.keys import digest
from benchmark.planning.jobs import (
    Data,
    Job,
    Method,
    PoisonJob,
    PurifyJob,
    SurrogateJob,
    TrainJob,
    Victim,
)
from benchmark.planning.stage import Stage
from benchmark.planning.suite import ResolvedSuite
from benchmark.storage.files import sha256

LEAST_COST = 0.05  # of a poison or a purification, in passes of the victim over the training set


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid, with the key of its record and the keys of all its stages."""

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
        parts = [str(self.dataset), str(self.attack), str(self.defense)]
        parts += [self.victim, self.protocol.name, f"seed {self.seed}"]
        return " / ".join(parts + ([f"ratio {self.ratio:g}"] if self.ratio != 1 else []))

    def axes(self) -> dict[str, str]:
        """The value of the cell on each axis, as text."""
        return {
            "dataset": str(self.dataset),
            "victim": self.victim,
            "protocol": self.protocol.name,
            "ratio": f"ratio {self.ratio:g}",
            "seed": f"seed {self.seed}",
            "attack": str(self.attack),
            "defense": str(self.defense),
        }


@dataclass(frozen=True)
class Skip:
    """A combination that is left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All cells of a suite and their stages, inputs before the stages that read them."""

    suite: ResolvedSuite
    cells: tuple[Cell, ...]
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]


def make_plan(
    suite: ResolvedSuite,
    registry: Registry,
    fingerprint: Callable[[Spec], str],
    precision: str,
    content: Callable[[str], str] = sha256,
) -> Plan:
    """Multiply the axes of a suite.

    Args:
        suite: the axes.
        registry: knows the versions and costs of the methods.
        fingerprint: maps a data set's spec to the sha256 of its content.
        precision: ``fp32`` or ``bf16``, which ``auto`` means on the machine that will run.
        content: maps the path of a file that an attack reads to the sha256 of its content.

    Raises:
        FileNotFoundError: if an attack names a file that does not exist.
    """
    planner = _Planner(suite, registry, precision, cache(content))
    for dataset in suite.datasets:
        planner.add(Data(dataset, fingerprint(dataset)))
    stages, cells = planner.stages.values(), planner.cells.values()
    return Plan(suite, tuple(cells), tuple(stages), tuple(planner.skips))


@dataclass(frozen=True)
class _Attack:
    """An attack of the suite, or a chain of attacks applied one after the other."""

    spec: Spec
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class _Defense:
    method: Method
    card: Card


@dataclass(frozen=True)
class _Poison:
    """The stage that makes the poisoned images, and the keys of all stages up to it."""

    stage: Stage
    chain: tuple[str, ...]


class _Planner:
    """Collects cells and the stages that they share; it looks up each method once."""

    def __init__(
        self,
        suite: ResolvedSuite,
        registry: Registry,
        precision: str,
        content: Callable[[str], str],
    ) -> None:
        self.suite, self.registry, self.precision = suite, registry, precision
        self.cells: dict[str, Cell] = {}
        self.stages: dict[str, Stage] = {}
        self.skips: list[Skip] = []
        self._content = content
        self._attacks = [
            _Attack(spec, tuple(self._method("attack", part) for part in spec.parts()))
            for spec in suite.attacks
        ]
        self._defenses = [
            _Defense(self._method("defense", spec), registry.card("defense", spec.name))
            for spec in suite.defenses
        ]
        self._victims = [self._victim(name) for name in suite.victims]

    def add(self, data: Data) -> None:
        """Add all cells of one data set."""
        poisons: dict[tuple[str, int], _Poison] = {}
        purified: dict[tuple[str, float, str], Stage] = {}
        for attack, ratio, defense, victim, protocol, seed in product(
            self._attacks,
            self.suite.ratios,
            self._defenses,
            self._victims,
            self.suite.protocols,
            self.suite.seeds,
        ):
            names = (attack.spec, ratio, defense.method.spec, victim.name, protocol.name, seed)
            if reason := self._reason_to_skip(attack.spec.name, ratio):
                self._skip(data, *names, reason)
                continue
            share = 1.0 if attack.spec.name == ANCHOR else ratio
            craft_seed = seed if self.suite.craft_seed is None else self.suite.craft_seed
            place = str(attack.spec), craft_seed
            if (poison := poisons.get(place)) is None:
                poison = poisons[place] = self._poison(data, attack, craft_seed)
            purify = None
            if defense.card.purifies:
                which = poison.stage.key, share, str(defense.method.spec)
                if (purify := purified.get(which)) is None:
                    purify = self._purify(data, poison, attack, share, defense, craft_seed)
                    purified[which] = purify
            job = TrainJob(
                data,
                attack.methods,
                defense.method,
                victim,
                protocol,
                poison.stage.key,
                purify.key if purify is not None else None,
                share,
                seed,
                craft_seed,
                self._resolved(protocol.precision),
                defense.card.needs,
            )
            if not self._train(job, attack.spec, poison, defense):
                self._skip(data, *names, "the suite names this cell twice; it runs once")

    def _reason_to_skip(self, attack: str, ratio: float) -> str:
        if attack == ANCHOR and ratio != max(self.suite.ratios):
            return "clean data are the same at every poison ratio; they run once"
        if attack != ANCHOR and ratio == 0:
            return f'ratio 0 is clean data; the attack "{ANCHOR}" covers it'
        return ""

    def _skip(
        self,
        data: Data,
        attack: Spec,
        ratio: float,
        defense: Spec,
        victim: str,
        protocol: str,
        seed: int,
        reason: str,
    ) -> None:
        attacked = f"{attack} at ratio {ratio:g}"
        what = f"{data.spec} / {attacked} / {defense} / {victim} / {protocol} / seed {seed}"
        self.skips.append(Skip(what, reason))

    def _poison(self, data: Data, attack: _Attack, craft_seed: int) -> _Poison:
        """The stages of a chain of attacks, each of which changes the images of the one before."""
        chain: dict[str, None] = {}
        stage: Stage | None = None
        for method in attack.methods:
            stage = self._poison_once(data, method, stage, craft_seed)
            chain.update(dict.fromkeys((*stage.inputs, stage.key)))
        assert stage is not None  # a spec has at least one part
        return _Poison(stage, tuple(chain))

    def _poison_once(
        self, data: Data, attack: Method, before: Stage | None, craft_seed: int
    ) -> Stage:
        card = self.registry.card("attack", attack.spec.name)
        surrogate = victim = None
        if card.trained_surrogate:
            surrogate = self._surrogate(data, attack, card, craft_seed)
        elif isinstance(name := attack.spec.params.get("surrogate"), str):
            victim = self._victim(name)
        job = PoisonJob(
            data,
            attack,
            surrogate.key if surrogate is not None else None,
            victim,
            before.key if before is not None else None,
            craft_seed,
            self._resolved(self.suite.precision),
        )
        inputs = tuple(stage.key for stage in (surrogate, before) if stage is not None)
        on = ""
        if before is not None and isinstance(before.job, PoisonJob):
            on = f" on {before.job.attack.spec}"
        label = f"poison {attack.spec}{on}{self._crafted(craft_seed)}"
        return self._shared(job, inputs, label, LEAST_COST + _effort(attack.spec, card))

    def _surrogate(self, data: Data, attack: Method, card: Card, craft_seed: int) -> Stage:
        """The stage that trains a surrogate; attacks share it if the job's identity is the same."""
        params = attack.spec.params
        name, protocol = str(params["surrogate"]), get_protocol(str(params["surrogate_protocol"]))
        job = SurrogateJob(
            data,
            attack,
            card.trained_surrogate,
            "augment_surrogate" in card.overrides,
            self._victim(name),
            protocol,
            craft_seed,
            self._resolved(self.suite.precision),
        )
        epochs = "surrogate_epochs" in card.trained_surrogate and params["surrogate_epochs"]
        label = f"surrogate {name} of {attack.spec}{self._crafted(craft_seed)}"
        return self._shared(job, (), label, float(epochs or protocol.epochs))

    def _purify(
        self,
        data: Data,
        poison: _Poison,
        attack: _Attack,
        ratio: float,
        defense: _Defense,
        craft_seed: int,
    ) -> Stage:
        spec = defense.method.spec
        precision = self._resolved(self.suite.precision)
        job = PurifyJob(data, defense.method, poison.stage.key, ratio, craft_seed, precision)
        label = f"purify {attack.spec} with {spec}{self._crafted(craft_seed)}"
        cost = LEAST_COST + _effort(spec, defense.card)
        return self._shared(job, (poison.stage.key,), label, cost)

    def _train(self, job: TrainJob, attack: Spec, poison: _Poison, defense: _Defense) -> bool:
        """Add a cell and its last stage; return False if the cell is there already."""
        key = digest(job.identity())
        if key in self.cells:
            return False
        # the poison is always an input, since the record holds its facts
        inputs = (job.poison,) if job.purify is None else (job.purify, job.poison)
        card, spec = defense.card, defense.method.spec
        extra = _effort(spec, card) if card.trains and not card.purifies else 0.0
        seed = f", seed {job.seed}" if len(self.suite.seeds) > 1 else ""
        cost = job.protocol.epochs * (1 + extra)
        self.stages[key] = Stage(key, inputs, job, f"train {attack} + {spec}{seed}", cost)
        own = () if job.purify is None else (job.purify,)
        self.cells[key] = Cell(
            job.data.spec,
            job.ratio,
            attack,
            spec,
            job.victim.name,
            job.protocol,
            job.seed,
            key,
            (*poison.chain, *own, key),
        )
        return True

    def _shared(self, job: Job, inputs: tuple[str, ...], label: str, cost: float) -> Stage:
        """The stage of a job; jobs with the same identity share the first one's stage."""
        key = digest(job.identity())
        return self.stages.setdefault(key, Stage(key, inputs, job, label, cost))

    def _method(self, kind: str, spec: Spec) -> Method:
        card = self.registry.card(kind, spec.name)
        return Method(spec, card.version, card.content, self._files(spec, card))

    def _files(self, spec: Spec, card: Card) -> Mapping[str, str]:
        """The sha256 of each file that a method reads, by parameter."""
        given = {name: str(spec.params[name]) for name in card.files if spec.params[name]}
        return {name: self._content(path) for name, path in given.items()}

    def _victim(self, name: str) -> Victim:
        card = self.registry.card("victim", name)
        return Victim(name, card.version, card.content)

    def _crafted(self, craft_seed: int) -> str:
        """The craft seed as part of a label, if it varies; else an empty text."""
        varies = self.suite.craft_seed is None and len(self.suite.seeds) > 1
        return f", craft seed {craft_seed}" if varies else ""

    def _resolved(self, wanted: str) -> str:
        """The precision to use, after the suite's own setting and ``auto`` are resolved."""
        if self.suite.precision != "auto":
            wanted = self.suite.precision
        return self.precision if wanted == "auto" else wanted


def _effort(spec: Spec, card: Card) -> float:
    total = 0.0
    for name, passes in card.effort.items():
        value = spec.params.get(name, 1.0) if name else 1.0
        total += passes * value if isinstance(value, (int, float)) else 0.0
    return total
