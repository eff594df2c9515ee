"""What the author of a method writes against: Attack, Defense, Dataset, Context, and their decorators.

A method is one class in one file; the file name is its registered name, and the annotated fields of the class are its
parameters. Field defaults are plain literals or arithmetic on literals (``8 / 255``), because the registry reads them
without running the file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.catalogue.spec import Value, defaults_by_choice
from benchmark.data import DatasetInfo, ImageSet, Splits
from benchmark.keys import axis_seed

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry

T = TypeVar("T")
Progress = Callable[[float, str], None]


@dataclass
class Context:
    """What a method may know of its surroundings: a device, seeds and a place to work. Never whom it faces.

    Attributes:
        seed_axes: what the seeds of this run derive from.
        device: where tensors live.
        precision: ``fp32`` or ``bf16``, for ``autocast``.
        scratch: a folder of this stage's own. It survives a killed run, so a method may keep its state here and resume.
        workers: threads that a method may use for work outside torch.
        registry: where surrogates are looked up, so that a plugin's victim can be one; None means the victims that uebench brings.
        surrogates: the states of the attack's trained surrogate, one a checkpoint; None if no stage trained it (``training.surrogate``).
    """

    seed_axes: tuple[object, ...] = ("default",)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    scratch: Path | None = None
    workers: int = 1
    registry: Registry | None = None
    surrogates: tuple[Mapping[str, Tensor], ...] | None = None
    on_progress: Progress | None = None
    on_log: Callable[[str], None] | None = None
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    _streams: dict[str, torch.Generator] = field(default_factory=dict, repr=False)

    def seed(self, purpose: str) -> int:
        """The seed of one purpose, the same in every run and independent of every other purpose."""
        return axis_seed(*self.seed_axes, purpose)

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh random generator for one purpose; asking twice gives the same numbers twice.

        On the CPU by default, so that a poison made on a GPU machine draws what a CPU machine draws.
        """
        return torch.Generator(device).manual_seed(self.seed(purpose))

    def stream(self, purpose: str) -> torch.Generator:
        """A random generator that goes on from call to call, for what is drawn anew in every batch."""
        if purpose not in self._streams:
            self._streams[purpose] = self.generator(purpose)
        return self._streams[purpose]

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision as the plan chose it; outside it, and in fp32, nothing changes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def progress(self, done: float, note: str = "") -> None:
        """Reports the share done, 0..1, with a short note such as ``round 3: 88.2 %``."""
        if self.on_progress is not None:
            self.on_progress(done, note)

    def track(self, items: Iterable[T], total: int, note: str = "") -> Iterator[T]:
        """Yields ``items`` and reports progress, at most about five times a second."""
        last = 0.0
        for i, item in enumerate(items):
            yield item
            if (now := time.monotonic()) - last > 0.2:
                last = now
                self.progress((i + 1) / max(total, 1), note)

    def log(self, message: str) -> None:
        """Writes one line to the run's log."""
        if self.on_log is not None:
            self.on_log(message)

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keeps tensors beside this stage's result as the artifact ``name``, for example a fitted model."""
        self.kept[name] = {
            key: value.detach().to("cpu").contiguous() for key, value in tensors.items()
        }

    def note(self, **facts: float | int | str | bool) -> None:
        """Records facts about this run beside its result, for example ``rounds=7``. JSON has no NaN or infinity: these become text."""
        for name, value in facts.items():
            self.notes[name] = (
                str(value) if isinstance(value, float) and not math.isfinite(value) else value
            )


class Method:
    """What attacks, defenses and data sets have in common. The decorators fill in ``version`` and ``cite``.

    ``effort`` tells the planner what a method costs, in passes of the victim over the training set per unit of a parameter:
    ``{"epochs": 3.0}`` is three passes for each of its epochs; the key ``""`` is a fixed part. For a defense that acts during
    training it counts extra passes for each epoch of the victim. ``toy`` holds parameters small enough for the contract tests.
    ``later`` names parameters that came after results had been published, with defaults that leave those results as they are:
    at its default such a parameter is not part of a result's key.
    ``by_choice`` holds the defaults that a choice brings: with ``{"norm=l2": {"eps": 0.5}}``, the
    default of ``eps`` is 0.5 where ``norm`` is ``l2``.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 0
    cite: ClassVar[str] = ""
    effort: ClassVar[Mapping[str, float]] = {}
    toy: ClassVar[Mapping[str, Value]] = {}
    later: ClassVar[tuple[str, ...]] = ()
    by_choice: ClassVar[Mapping[str, Mapping[str, Value]]] = {}


class Attack(Method):
    """Makes training images unlearnable.

    ``norm`` names the budget's norm: ``linf`` and ``l2`` in [0, 1] units, ``l0`` in pixels, ``none`` for no bound.
    ``trained_surrogate`` names the parameters that decide the training of the networks that ``training.surrogate.surrogates`` gives;
    ``surrogate`` (a victim) and ``surrogate_protocol`` are among them, ``surrogate_epochs`` and ``checkpoints`` may be.
    ``files`` names the parameters that are paths of files (an empty one is none): results are named by what the files hold.
    """

    norm: ClassVar[str] = "linf"
    trained_surrogate: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[str, ...]] = ()

    def budget(self, info: DatasetInfo) -> float:
        """The bound on one image's change, in units of ``norm``; by default the parameter ``eps``."""
        return float(getattr(self, "eps", 0.0))

    def check(self, info: DatasetInfo) -> None:
        """Refuses, with a ValueError, a data set that the attack cannot protect as it is set; called before anything is trained or made."""

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        """The protected images: same images, same order, same labels, within the budget after rounding."""
        raise TypeError(f'attack "{self.name}" does not define poison(data, ctx)')

    def augment_surrogate(self, x: Tensor, ctx: Context) -> Tensor:
        """Changes a training batch of the trained surrogate, float (B, C, H, W) in [0, 1]. By default it stays as it is."""
        return x


class Defense(Method):
    """Restores learning, before training (``purify``) or during it (``augment``, ``loss``, ``at_test``).

    ``needs`` declares privileges: ``clean:500`` (clean images), ``pairs:1000`` (clean and protected pairs),
    ``pretrained:cifar10`` (weights). ``filters`` declares that ``purify`` may drop images.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    filters: ClassVar[bool] = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Cleaned training images in their order. By default the images as they are."""
        return data

    def augment(self, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Changes a training batch: ``x`` float (B, C, H, W) in [0, 1]; ``y`` int64 (B,) may become float (B, K)."""
        return x, y

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The scalar training loss of a batch; by default cross-entropy.

        ``y`` is what ``augment`` returned, or float (B, K) where the protocol smooths labels. torch's cross-entropy takes both.
        """
        with ctx.autocast():
            logits = model(x)
        return F.cross_entropy(logits.float(), y)

    def at_test(self, x: Tensor) -> Tensor:
        """Changes test images, float (B, C, H, W) in [0, 1]. By default they stay as they are."""
        return x


@dataclass(frozen=True, kw_only=True)
class Dataset(Method):
    """Loads a data set.

    Every data set takes these parameters; 0 means all images of a class.
    """

    train_per_class: int = 0
    test_per_class: int = 0
    subset_seed: int = 0

    def source_id(self, root: Path) -> str:
        """Names the source's content without decoding it, so that a cached copy can be found (and found stale)."""
        return ""

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        """Builds or reads the whole data set; ``benchmark.datasets.open_dataset`` caches it and takes the subset.

        Raises:
            FileNotFoundError: if the files are not there; the message says how to get them.
        """
        raise TypeError(f'data set "{self.name}" does not define load(root, ctx)')


C = TypeVar("C", bound=type)


def _decorator(base: type[Method], version: int, cite: str) -> Callable[[C], C]:
    def wrap(cls: C) -> C:
        if not issubclass(cls, base):
            raise TypeError(f"{cls.__name__} must derive from {base.__name__}")
        dataclass(frozen=True, kw_only=True)(cls)  # in place
        if cls.by_choice:
            _fill_in_by_choice(cls)
        setattr(cls, "version", version)  # noqa: B010  the class is only known to be a type here
        setattr(cls, "cite", cite)  # noqa: B010
        return cls

    return wrap


def _fill_in_by_choice(cls: type[Method]) -> None:
    """Let the constructor take the defaults that a choice brings, as a spec does."""
    plain: dict[str, Any] = {
        item.name: item.default
        for item in fields(cls)  # type: ignore[arg-type]
    }
    build = cls.__init__

    def __init__(self: Method, **given: Value) -> None:  # noqa: N807  replaces the dataclass's
        build(self, **{**defaults_by_choice(cls.by_choice, {**plain, **given}), **given})

    setattr(cls, "__init__", __init__)  # noqa: B010  mypy takes no assignment to a method


@dataclass_transform(kw_only_default=True, frozen_default=True)
def attack(*, version: int, cite: str) -> Callable[[C], C]:
    """Makes a class an attack. Raise ``version`` when its numbers may change; ``cite`` names the source."""
    return _decorator(Attack, version, cite)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def defense(*, version: int, cite: str) -> Callable[[C], C]:
    """Makes a class a defense. Raise ``version`` when its numbers may change; ``cite`` names the source."""
    return _decorator(Defense, version, cite)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def dataset(*, version: int, cite: str) -> Callable[[C], C]:
    """Makes a class a data set. Raise ``version`` when its images may change; ``cite`` names the source."""
    return _decorator(Dataset, version, cite)
