"""The interface for authors of methods: Attack, Defense, Dataset, Context, and the decorators.

A method is one class in one file. The file name is its registered name, and the annotated fields of
the class are its parameters. Field defaults are plain literals or arithmetic on literals
(``8 / 255``), because the registry reads them without running the file. Choices are annotated as
``Literal["sample", "class"]`` and ranges as ``Annotated[float, Interval(gt=0, le=1)]`` of
annotated-types. The registry and every new instance check them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, dataclass_transform

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.catalogue.instances import check_when_built, make_frozen, use_defaults_by_choice
from benchmark.catalogue.spec import Value
from benchmark.data import DatasetInfo, ImageSet, Splits
from benchmark.keys import axis_seed

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry

T = TypeVar("T")
Progress = Callable[[float, str], None]
Norm = Literal["linf", "l2", "l0", "none"]


@dataclass
class Context:
    """The surroundings that a method sees: a device, seeds and a place to work.

    A method never learns which attack or defense it faces.

    Attributes:
        seed_axes: the values from which the seeds of this run derive.
        device: where tensors live.
        precision: ``fp32`` or ``bf16``, for ``autocast``.
        scratch: a folder that this stage alone uses. It survives a killed run, so a method may keep
            its state here and resume.
        workers: the number of threads that a method may use for work outside torch.
        registry: finds victims and surrogates, those of plugins too; None finds only those that
            uebench brings.
        surrogates: the states of the attack's trained surrogate, one for each checkpoint; None if
            no stage trained it (``training.surrogate``).
        epoch: the current epoch, from 0, while a victim or a surrogate is trained; None otherwise.
        epochs: the number of epochs of that training; None otherwise.
    """

    seed_axes: tuple[object, ...] = ("default",)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    scratch: Path | None = None
    workers: int = 1
    registry: Registry | None = None
    surrogates: tuple[Mapping[str, Tensor], ...] | None = None
    epoch: int | None = None
    epochs: int | None = None
    on_progress: Progress | None = None
    on_log: Callable[[str], None] | None = None
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    _streams: dict[str, torch.Generator] = field(default_factory=dict, repr=False)
    _numpy_streams: dict[str, np.random.Generator] = field(default_factory=dict, repr=False)
    _info: DatasetInfo | None = field(default=None, repr=False)

    @property
    def info(self) -> DatasetInfo:
        """Describe the images: classes, channels, sides, and whether mirroring keeps the class.

        Raises:
            RuntimeError: where there are no images, such as while a data set is read.
        """
        if self._info is None:
            raise RuntimeError(
                "ctx.info is not known here; outside a stage, set ctx.info = data.info first"
            )
        return self._info

    @info.setter
    def info(self, info: DatasetInfo) -> None:
        self._info = info

    def seed(self, purpose: str) -> int:
        """Return the seed of one purpose, the same in every run and independent of all others."""
        return axis_seed(*self.seed_axes, purpose)

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh random generator for one purpose.

        A second call gives the same numbers again. The generator is on the CPU by default, so that
        an attack draws the same numbers on a GPU machine and on a CPU machine.
        """
        return torch.Generator(device).manual_seed(self.seed(purpose))

    def stream(self, purpose: str) -> torch.Generator:
        """Return a random generator that continues from call to call, for draws in every batch."""
        if purpose not in self._streams:
            self._streams[purpose] = self.generator(purpose)
        return self._streams[purpose]

    def numpy_stream(self, purpose: str) -> np.random.Generator:
        """Return a NumPy generator that continues from call to call.

        It serves distributions that torch cannot draw from a generator, such as ``beta``.
        """
        if purpose not in self._numpy_streams:
            self._numpy_streams[purpose] = np.random.default_rng(self.seed(purpose))
        return self._numpy_streams[purpose]

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the precision that the plan chose; with ``fp32`` nothing changes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def progress(self, done: float, note: str = "") -> None:
        """Report the share done, 0..1, with a short note such as ``round 3: 88.2 %``."""
        if self.on_progress is not None:
            self.on_progress(done, note)

    def track(self, items: Iterable[T], total: int, note: str = "") -> Iterator[T]:
        """Yield ``items`` and report progress, at most about five times a second."""
        last = 0.0
        for i, item in enumerate(items):
            yield item
            if (now := time.monotonic()) - last > 0.2:
                last = now
                self.progress((i + 1) / max(total, 1), note)

    def log(self, message: str) -> None:
        """Write one line to the run's log."""
        if self.on_log is not None:
            self.on_log(message)

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors, such as a fitted model, as the artifact ``name`` of this stage's result."""
        self.kept[name] = {
            key: value.detach().to("cpu").contiguous() for key, value in tensors.items()
        }

    def note(self, **facts: float | int | str | bool) -> None:
        """Record facts about this run beside its result, for example ``rounds=7``.

        NaN and infinity become text, since JSON does not have them.
        """
        for name, value in facts.items():
            has_no_json = isinstance(value, float) and not math.isfinite(value)
            self.notes[name] = str(value) if has_no_json else value


class Method:
    """The common base of attacks, defenses and data sets; the decorators set its attributes."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 0
    cite: ClassVar[str] = ""
    effort: ClassVar[Mapping[str, float]] = {}
    toy: ClassVar[Mapping[str, Value]] = {}
    later: ClassVar[tuple[str, ...]] = ()
    by_choice: ClassVar[Mapping[str, Mapping[str, Value]]] = {}


class Attack(Method):
    """Make training images unlearnable; the decorator ``attack`` explains what one declares."""

    declared_norm: ClassVar[Norm] = "linf"
    trained_surrogate: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[str, ...]] = ()

    @property
    def norm(self) -> Norm:
        """The norm of the budget, by default the declared one.

        An attack whose norm depends on its parameters overrides this.
        """
        return self.declared_norm

    def budget(self, info: DatasetInfo) -> float:
        """Return the bound on an image's change, in units of ``norm``; by default ``eps``."""
        return float(getattr(self, "eps", 0.0))

    def check(self, info: DatasetInfo) -> None:
        """Raise a ValueError for a data set that the attack cannot protect with its parameters.

        The stage calls this before it trains or makes anything.
        """

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Return the protected images, with the same order and labels.

        Their changes are within the budget after rounding to uint8.
        """
        raise TypeError(f'attack "{self.name}" does not define poison(data, ctx)')

    def augment_surrogate(self, x: Tensor, ctx: Context) -> Tensor:
        """Change a training batch of the trained surrogate, float (B, C, H, W) in [0, 1].

        By default the batch stays as it is.
        """
        return x


class Defense(Method):
    """Restore learning; the decorator ``defense`` explains what a defense declares.

    ``purify`` acts once, before training. In training, ``augment`` acts on each batch, and ``loss``
    on the result; ``at_test`` acts on the test images at each evaluation.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    filters: ClassVar[bool] = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Return cleaned training images in their order; by default the images as they are."""
        return data

    def augment(self, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Change a training batch: ``x`` float (B, C, H, W) in [0, 1], ``y`` int64 (B,).

        The labels that it returns may also be float (B, K).
        """
        return x, y

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Return the scalar training loss of a batch; by default cross-entropy.

        ``y`` is what ``augment`` returned, or float (B, K) where the protocol smooths labels.
        torch's cross-entropy takes both.
        """
        with ctx.autocast():
            logits = model(x)
        return F.cross_entropy(logits.float(), y)

    def at_test(self, x: Tensor) -> Tensor:
        """Change test images, float (B, C, H, W) in [0, 1]; by default they stay as they are."""
        return x


@dataclass(frozen=True, kw_only=True)
class Dataset(Method):
    """Load a data set.

    Every data set takes the parameters below.

    Parameters:
        train_per_class, test_per_class: images of each class; 0 means all of them.
        subset_seed: chooses these images.
        validation_per_class: training images of each class, the last ones, that leave the training
            images and take the place of the test images, so that settings are chosen without
            looking at these; 0 means none.
    """

    train_per_class: int = 0
    test_per_class: int = 0
    subset_seed: int = 0
    validation_per_class: int = 0

    def source_id(self, root: Path) -> str:
        """Name the content of the source without decoding it.

        The name changes with the content, so that no stale cached copy is used.
        """
        return ""

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        """Build or read the whole data set; ``open_dataset`` caches it and takes the subset.

        Raises:
            FileNotFoundError: if the files are not there; the message says how to get them.
        """
        raise TypeError(f'data set "{self.name}" does not define load(root, ctx)')


C = TypeVar("C", bound=type)
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass_transform(kw_only_default=True, frozen_default=True)
def attack(
    *,
    version: int,
    cite: str,
    norm: Norm = "linf",
    effort: Mapping[str, float] = NOTHING,
    toy: Mapping[str, Value] = NOTHING,
    trained_surrogate: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    later: tuple[str, ...] = (),
    by_choice: Mapping[str, Mapping[str, Value]] = NOTHING,
) -> Callable[[C], C]:
    """Make a class an attack: a frozen dataclass whose annotated fields are its parameters.

    The registry reads all of this from the source, so each value is a literal, or arithmetic on
    literals.

    Args:
        version: raise it whenever results may change for the same parameters.
        cite: the source, such as ``arXiv:2101.04898``.
        norm: the norm of the budget: ``linf`` and ``l2`` in [0, 1] units, ``l0`` in pixels,
            ``none`` for no bound.
        effort: what the attack costs, in passes of the victim over the training set per unit of a
            parameter: ``{"epochs": 3.0}`` is three passes for each of its epochs; the key ``""`` is
            a fixed part.
        toy: parameters small enough for the contract tests.
        trained_surrogate: the parameters that decide the training of the networks that
            ``training.surrogate.surrogates`` gives. ``surrogate`` (a victim) and
            ``surrogate_protocol`` are among them; ``surrogate_epochs`` and ``checkpoints`` may be.
        files: the parameters that are paths of files; an empty path means no file. The content of
            the files is part of a result's key.
        later: parameters that came after results had been published, whose defaults leave those
            results as they are. At its default such a parameter is not part of a result's key.
        by_choice: the defaults that a choice brings. With ``{"norm=l2": {"eps": 0.5}}``, the
            default of ``eps`` is 0.5 where ``norm`` is ``l2``.
    """
    return _decorator(
        Attack,
        version=version,
        cite=cite,
        declared_norm=norm,
        effort=effort,
        toy=toy,
        trained_surrogate=trained_surrogate,
        files=files,
        later=later,
        by_choice=by_choice,
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
def defense(
    *,
    version: int,
    cite: str,
    needs: tuple[str, ...] = (),
    filters: bool = False,
    effort: Mapping[str, float] = NOTHING,
    toy: Mapping[str, Value] = NOTHING,
    later: tuple[str, ...] = (),
    by_choice: Mapping[str, Mapping[str, Value]] = NOTHING,
) -> Callable[[C], C]:
    """Make a class a defense: a frozen dataclass whose annotated fields are its parameters.

    The registry reads all of this from the source, so each value is a literal, or arithmetic on
    literals.

    Args:
        version: raise it whenever results may change for the same parameters.
        cite: the source, such as ``arXiv:2301.13838``.
        needs: privileges: ``clean:500`` (clean images), ``pairs:1000`` (clean and protected pairs),
            ``pretrained:cifar10`` (weights).
        filters: whether ``purify`` may leave images out. It keeps the order of the others.
        effort: as for ``attack``. For a defense without ``purify`` it counts extra passes for each
            epoch of the victim.
        toy, later, by_choice: as for ``attack``.
    """
    return _decorator(
        Defense,
        version=version,
        cite=cite,
        needs=needs,
        filters=filters,
        effort=effort,
        toy=toy,
        later=later,
        by_choice=by_choice,
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
def dataset(*, version: int, cite: str, later: tuple[str, ...] = ()) -> Callable[[C], C]:
    """Make a class a data set: a frozen dataclass whose annotated fields are its parameters.

    Args:
        version: raise it whenever the images may change for the same parameters.
        cite: the source, authors and year.
        later: as for ``attack``.
    """
    return _decorator(Dataset, version=version, cite=cite, later=later)


def _decorator(base: type[Method], **declared: object) -> Callable[[C], C]:
    """Return the decorator that makes a class a method of the kind ``base``.

    Each of ``declared`` becomes an attribute of the class.
    """

    def decorate(cls: C) -> C:
        if not issubclass(cls, base):
            raise TypeError(f"{cls.__name__} must derive from {base.__name__}")
        check_when_built(cls)
        make_frozen(cls, Method)
        for name, value in declared.items():
            setattr(cls, name, value)
        if cls.by_choice:
            use_defaults_by_choice(cls, cls.by_choice)
        return cls

    return decorate
