"""Frozen victim-training settings: what must be equal before two accuracies may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from benchmark.catalogue.limits import check_fields
from benchmark.catalogue.spec import Value, did_you_mean


@dataclass(frozen=True)
class Protocol:
    """How a victim is trained.

    Attributes:
        name: the name in suites.
        summary: a line for ``list``.
        epochs: passes over the training set. The accuracy after the last one is the result.
        batch_size: images a step; an incomplete last batch is dropped unless it is the only one.
        lr, momentum, weight_decay: of SGD.
        nesterov: whether to use Nesterov momentum.
        schedule: ``cosine`` (to 0, per epoch) or ``onecycle`` (linear up over ``warmup``, then
            linear to 0, per step).
        warmup: share of the steps over which ``onecycle`` rises.
        crop: zero padding of the random crop in pixels; 0 for none.
        flip: whether to mirror images at random, if the data set allows it.
        clip: bound on the global L2 norm of the gradient; 0 for none.
        precision: ``auto``, ``fp32`` or ``bf16``; the planner resolves ``auto``.
        label_smoothing: share of each label that is spread evenly over all classes (Szegedy et al.,
            CVPR 2016, arXiv:1512.00567).
    """

    name: str
    summary: str
    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(2)] = 128
    lr: Annotated[float, Gt(0)] = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: Literal["cosine", "onecycle"] = "cosine"
    warmup: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    crop: Annotated[int, Ge(0)] = 4
    flip: bool = True
    clip: float = 5.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        try:
            check_fields(self)
        except ValueError as error:
            raise ValueError(f"protocol {self.name}: {error}") from error

    def settings(self) -> dict[str, Value]:
        """The settings that decide a training, for keys and records.

        ``label_smoothing`` is left out if it is 0, so that keys from before it was added stay.
        """
        values = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("name", "summary", "precision")
        }
        if not self.label_smoothing:
            del values["label_smoothing"]
        return values

    def with_values(self, values: Mapping[str, Value]) -> Protocol:
        """This protocol with some settings replaced.

        Raises:
            ValueError: for an unknown setting or a value of the wrong type.
        """
        known = [item.name for item in fields(self) if item.name not in ("name", "summary")]
        fitting: dict[str, Value] = {}
        for name, value in values.items():
            if name not in known:
                raise ValueError(
                    f'a protocol has no setting "{name}"{did_you_mean(name, sorted(known))}'
                )
            kind = type(getattr(self, name)).__name__
            if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value).__name__ != kind:
                raise ValueError(f"protocol setting {name}={value!r} is not of type {kind}")
            fitting[name] = value
        return replace(self, **fitting)  # type: ignore[arg-type]


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # D-VAE's recipe; ISS trains without clipping and keeps an incomplete last batch
        Protocol(
            "std60",
            "the papers' recipe: 60 epochs, cosine from 0.1, batch 128, crop 4 + flip, clip 5.0",
            epochs=60,
        ),
        Protocol(
            "lite",
            "for CPUs: 20 epochs, one-cycle to 0.2, batch 64, crop 4 + flip; "
            "minutes a victim on 10,000 CIFAR images",
            epochs=20,
            batch_size=64,
            lr=0.2,
            nesterov=True,
            schedule="onecycle",
        ),
        Protocol(
            "quick",
            "for a first look on the embedded set: 7 epochs, one-cycle to 0.2, batch 64, "
            "no crop, smoothed labels",
            epochs=7,
            batch_size=64,
            lr=0.2,
            weight_decay=2e-3,
            nesterov=True,
            schedule="onecycle",
            crop=0,
            clip=1.0,
            label_smoothing=0.1,
        ),
        # airbench94's values, converted to a mean loss and batches of 256
        Protocol(
            "fast",
            "for airbench on all images: 8 epochs, one-cycle to 0.375, batch 256, crop 2 + flip, "
            "smoothed labels",
            epochs=8,
            batch_size=256,
            lr=0.375,
            momentum=0.85,
            weight_decay=1.3e-3,
            nesterov=True,
            schedule="onecycle",
            crop=2,
            clip=0.0,
            label_smoothing=0.2,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        ValueError: if no protocol has that name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'unknown protocol "{name}"{did_you_mean(name, sorted(PROTOCOLS))}')
    return PROTOCOLS[name]
