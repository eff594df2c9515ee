"""The four jobs of a plan: surrogate, poison, purify, train.

A job holds everything that a worker needs. Its ``identity`` is a plain mapping of everything that
decides the result; the sha256 of the identity is the key of the result. Labels, paths and machines
are in no identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from benchmark.catalogue.protocol import Protocol
from benchmark.catalogue.spec import SUBSET_PARAMS, Spec, Value
from benchmark.storage.record import Record

# Part of every key. Raise it when a change of train.py, loader.py or data.py may change numbers.
CORE_VERSION = 1

Identity = Mapping[str, Any]  # plain JSON


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its full spec, and the sha256 of all its images and labels."""

    spec: Spec
    fingerprint: str

    @property
    def subset(self) -> dict[str, Value]:
        """The parameters that choose the subset."""
        params = self.spec.params
        return {name: params[name] for name in SUBSET_PARAMS if name in params}

    def identity(self) -> dict[str, Any]:
        """Content and subset of the data set; its name and path are not part of it."""
        return {"fingerprint": self.fingerprint, "subset": self.subset}


@dataclass(frozen=True, slots=True)
class Method:
    """An attack or a defense with all its parameters.

    Attributes:
        spec: name, every parameter, and the label.
        version: version of the method, raised whenever its results may change.
        content: sha256 of a plugin's file; empty for the project's own methods.
        files: sha256 of each file that the method reads, by the parameter that names it.
    """

    spec: Spec
    version: int
    content: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name under which the method is registered."""
        return self.spec.name

    def identity(self) -> dict[str, Any]:
        """Everything that decides the method's results; for a file its content, not its path."""
        params = {**self.spec.params, **self.files}
        own = {"name": self.spec.name, "version": self.version, "params": params}
        return {**own, "content": self.content} if self.content else own

    def recorded(self) -> dict[str, Any]:
        """The method in the form of records."""
        params = dict(self.spec.params)
        own = {"name": self.spec.name, "version": self.version, "params": params}
        return {**own, "files": dict(self.files)} if self.files else own


@dataclass(frozen=True, slots=True)
class Victim:
    """A network by name, with the version of its code and the sha256 of a plugin's file."""

    name: str
    version: int = 1
    content: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether this is the first version of one of the project's own networks."""
        return self.version == 1 and not self.content

    def identity(self) -> str | dict[str, Any]:
        """The name alone if ``is_plain``, so that keys from before versions stay."""
        if self.is_plain:
            return self.name
        own = {"name": self.name, "version": self.version}
        return {**own, "content": self.content} if self.content else own


@dataclass(frozen=True, slots=True)
class SurrogateJob:
    """Train the surrogate of an attack.

    Attributes:
        attack: the attack that needs the surrogate. Others may share the result.
        deciding: the parameters of the attack that decide the training.
        augments: whether the attack changes the training batches; then its own code decides the
            result as well.
    """

    data: Data
    attack: Method
    deciding: tuple[str, ...]
    augments: bool
    victim: Victim
    protocol: Protocol
    craft_seed: int
    precision: str
    kind: Literal["surrogate"] = "surrogate"

    def identity(self) -> Identity:
        """Everything that decides the surrogate's weights."""
        params = {name: self.attack.spec.params[name] for name in self.deciding}
        own = {
            "stage": self.kind,
            "core": CORE_VERSION,
            "data": self.data.identity(),
            "params": params,
            "protocol": self.protocol.settings(),
            "seed": self.craft_seed,
            "precision": self.precision,
        }
        if self.augments:
            own["attack"] = {**self.attack.identity(), "params": params}
        return own if self.victim.is_plain else {**own, "victim": self.victim.identity()}

    @property
    def seed_axes(self) -> tuple[object, ...]:
        """The values that seed the random streams of the job."""
        return self.kind, self.data.identity(), self.craft_seed


@dataclass(frozen=True, slots=True)
class PoisonJob:
    """Poison a data set, or the images that another attack has poisoned.

    Attributes:
        surrogate: key of the trained surrogate, if the attack has one.
        victim: the network that an attack without a trained surrogate names, if it names one.
        on: key of the poison that this attack is applied to; None for the first attack of a chain.
    """

    data: Data
    attack: Method
    surrogate: str | None
    victim: Victim | None
    on: str | None
    craft_seed: int
    precision: str
    kind: Literal["poison"] = "poison"

    def identity(self) -> Identity:
        """Everything that decides the poisoned images."""
        own = {
            "stage": self.kind,
            "core": CORE_VERSION,
            "data": self.data.identity(),
            "attack": self.attack.identity(),
            "seed": self.craft_seed,
            "precision": self.precision,
        }
        if self.surrogate is not None:
            own["surrogate"] = self.surrogate
        if self.victim is not None and not self.victim.is_plain:
            own["victim"] = self.victim.identity()
        return own if self.on is None else {**own, "on": self.on}

    @property
    def seed_axes(self) -> tuple[object, ...]:
        """The values that seed the random streams of the job; parameters are not among them."""
        return self.kind, self.data.identity(), self.attack.spec.name, self.craft_seed


@dataclass(frozen=True, slots=True)
class PurifyJob:
    """Purify a poisoned data set. ``poison`` is the key of the poisoned images."""

    data: Data
    defense: Method
    poison: str
    ratio: float
    craft_seed: int
    precision: str
    kind: Literal["purify"] = "purify"

    def identity(self) -> Identity:
        """Everything that decides the purified images."""
        return {
            "stage": self.kind,
            "core": CORE_VERSION,
            "poison": self.poison,
            "ratio": self.ratio,
            "defense": self.defense.identity(),
            "seed": self.craft_seed,
            "precision": self.precision,
        }

    @property
    def seed_axes(self) -> tuple[object, ...]:
        """The values that seed the random streams of the job.

        The attack is not among them, since a defender cannot know it.
        """
        return self.kind, self.data.identity(), self.defense.spec.name, self.craft_seed

    @property
    def mix_axes(self) -> tuple[object, ...]:
        """The values that seed the order in which images are poisoned, for ratios below 1."""
        return _mix_axes(self.data, self.craft_seed)


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Train a victim.

    Attributes:
        attacks: the attacks that made the poison, in order; only the record needs them.
        poison: key of the poisoned images.
        purify: key of the purified images; None if the defense does not purify.
        needs: what the defense has beyond the training images; only the record needs it.
    """

    data: Data
    attacks: tuple[Method, ...]
    defense: Method
    victim: Victim
    protocol: Protocol
    poison: str
    purify: str | None
    ratio: float
    seed: int
    craft_seed: int
    precision: str
    needs: tuple[str, ...] = ()
    kind: Literal["train"] = "train"

    def identity(self) -> Identity:
        """Everything that decides the victim's accuracy."""
        return {
            "stage": self.kind,
            "core": CORE_VERSION,
            "data": self.data.identity(),
            "input": self.purify or self.poison,
            "ratio": self.ratio,
            "defense": self.defense.identity(),
            "victim": self.victim.identity(),
            "protocol": self.protocol.settings(),
            "seed": self.seed,
            "precision": self.precision,
        }

    @property
    def seed_axes(self) -> tuple[object, ...]:
        """The values that seed the random streams of the job.

        Victims of one seed share them, so that they can be compared in pairs.
        """
        return self.kind, self.data.identity(), self.seed

    @property
    def mix_axes(self) -> tuple[object, ...]:
        """The values that seed the order in which images are poisoned, for ratios below 1."""
        return _mix_axes(self.data, self.craft_seed)

    @property
    def attack(self) -> str:
        """The label of the attacks, as in tables: ``em+ops``."""
        return "+".join(str(attack.spec) for attack in self.attacks)

    def record(self, key: str) -> Record:
        """The record of the job, as far as it is known before the training."""
        return Record(
            key=key,
            dataset=str(self.data.spec),
            attack=self.attack,
            defense=str(self.defense.spec),
            victim=self.victim.name,
            protocol=self.protocol.name,
            ratio=self.ratio,
            seed=self.seed,
            craft_seed=self.craft_seed,
            precision=self.precision,
            needs=self.needs,
            dataset_spec={
                "name": self.data.spec.name,
                "fingerprint": self.data.fingerprint,
                **self.data.subset,
            },
            dataset_params=dict(self.data.spec.params),
            attack_spec=_chain(self.attacks),
            defense_spec=self.defense.recorded(),
            protocol_spec=self.protocol.settings(),
            identity=self.identity(),
        )


Job = Annotated[SurrogateJob | PoisonJob | PurifyJob | TrainJob, Discriminator("kind")]


def _mix_axes(data: Data, craft_seed: int) -> tuple[object, ...]:
    """The values are the same for every attack and ratio: smaller ratios nest in larger ones."""
    return "mix", data.identity(), craft_seed


def _chain(attacks: Sequence[Method]) -> dict[str, Any]:
    """The attacks in the form of records: the first one, and the next one under ``then``."""
    first, *others = attacks
    return {**first.recorded(), "then": _chain(others)} if others else first.recorded()
