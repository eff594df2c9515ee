"""Test the hooks of a method: what they return, that they repeat, and where they draw from."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.api import Context
from benchmark.catalogue.registry import Card, Registry
from benchmark.catalogue.spec import Spec
from benchmark.data import ImageSet, to_float
from benchmark.running.global_random import BUILD, IMPORT, NUMPY, PYTHON, seeded, watched
from benchmark.running.verify import verify_poison, verify_purified
from benchmark.training.train import as_pair, build_victim, smoothed

BATCH = 16  # images of the batch that augment, loss and at_test get
# A hook is called once in each of these epochs: some methods change what they do late.
EPOCHS, CALLED = 60, (0, 1, 30, 59)
LEVEL = 1 / 255
# What to use instead of a global generator; for those of torch see ``no_global_draw``.
INSTEAD = {
    PYTHON: 'random.Random(ctx.seed("purpose"))',
    NUMPY: 'ctx.numpy_stream("purpose")',
}


@dataclasses.dataclass
class Subject:
    """A method under test, with its card and toy images.

    Attributes:
        spec: all its parameters; None if the method cannot be built.
        first: the images that it made of ``data`` with seed 0; None before that test.
    """

    card: Card
    cls: type
    spec: Spec | None
    data: ImageSet
    registry: Registry
    first: ImageSet | None = None

    def build(self) -> Any:
        """Build a fresh instance of the method."""
        assert self.spec is not None
        return self.registry.build(self.card.kind, self.spec)

    def context(self, seed: int, scratch: Path | None = None) -> Context:
        """Make a fresh context whose numbers depend on ``seed`` alone."""
        ctx = Context(
            seed_axes=("check", self.card.kind, self.card.name, seed),
            scratch=scratch,
            registry=self.registry,
        )
        ctx.info = self.data.info
        return ctx

    def run(self, seed: int, shared: int) -> Any:
        """Call ``poison`` or ``purify`` with one seed, in a fresh scratch folder.

        Args:
            seed: the seed of the context.
            shared: the seed of the global generators, on which nothing may depend.
        """
        hook = "poison" if self.card.kind == "attack" else "purify"
        with tempfile.TemporaryDirectory(prefix="uebench-check-") as folder, seeded(shared):
            act = getattr(self.build(), hook)
            ctx = self.context(seed, Path(folder))
            with no_global_draw(hook):
                return act(self.data, ctx)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return a training batch: float (B, C, H, W) in [0, 1] and int64 (B,)."""
        x = to_float(self.data.x[:BATCH]).to(memory_format=torch.channels_last)
        return x, self.data.y[:BATCH].clone()

    def augmented(self) -> tuple[Tensor, Tensor]:
        """Return the training batch after ``augment``, as the loss gets it."""
        ctx = self.context(0)
        ctx.epoch, ctx.epochs = 0, EPOCHS
        return as_pair(self.build().augment(*self.batch(), ctx))

    def calls(self, shared: int, call: Callable[[Any, Context], Any]) -> list[Any]:
        """Call a hook of a fresh instance in early, middle and last epochs of a training.

        Args:
            shared: the seed of the global generators, on which nothing may depend.
            call: calls the hook of the method with a context.
        """
        results = []
        with seeded(shared):
            method, ctx = self.build(), self.context(0)
            ctx.epochs = EPOCHS
            for epoch in CALLED:
                ctx.epoch = epoch
                results.append(call(method, ctx))
        return results


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


@contextmanager
def no_global_draw(hook: str) -> Iterator[None]:
    """Raise at the end if a hook drew from a global generator.

    The message names the hook, the generator and what to use instead.
    """
    with watched() as drawn:
        yield
    refuse_draws(hook, drawn)


def refuse_draws(place: str, drawn: list[str]) -> None:
    """Raise if a hook, or the code before the hooks, drew from a global generator.

    Args:
        place: the name of the hook, ``IMPORT``, ``BUILD`` or ``check``.
        drawn: the names of the generators.
    """
    torch_way = 'generator=ctx.generator("purpose")'
    if place in ("augment", "loss", "augment_surrogate"):
        # The harness calls these for each batch, where a fresh generator would repeat itself.
        torch_way = 'generator=ctx.stream("purpose")'
    for name in drawn:
        advice = f"take {INSTEAD.get(name, torch_way)}"
        if place == "at_test":
            advice = "it may draw nothing at random, so that the accuracy repeats"
        elif place in (IMPORT, BUILD, "check"):
            advice = "draw where there is a context: ctx.generator or ctx.numpy_stream"
        raise ValueError(f"{place} draws from {name}; {advice}")


def require_repeats(hook: str, first: list[Any], again: list[Any]) -> None:
    """Require that two series of calls with one seed gave the same values.

    A value is a tensor, a number, or a tuple of tensors.
    """
    require(
        all(map(_same, first, again)),
        f"{hook} gives other values the second time with the same seed; draw from the context "
        "alone (ctx.generator, ctx.stream), and keep no state outside the method",
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def output(subject: Subject) -> str:
    """Test ``poison`` or ``purify``: shapes, range, labels, order, budget, untouched input."""
    with untouched({"images": subject.data.x, "labels": subject.data.y}):
        subject.first = subject.run(0, shared=0)
    check = verify_poison if subject.card.kind == "attack" else verify_purified
    facts = check(subject.data, subject.first, subject.build())
    return ", ".join(f"{name} {value:.4g}" for name, value in facts.items() if value is not None)


def seed(subject: Subject) -> str:
    """Require that one seed gives the same bytes twice.

    Another seed is tried and reported only, since a method need not be random.
    """
    assert subject.first is not None
    first = subject.first.fingerprint
    again, other = subject.run(0, shared=1).fingerprint, subject.run(1, shared=2).fingerprint
    require(
        first == again,
        "two runs with one seed differ; draw from ctx.generator(purpose) only, and keep no state "
        "outside the method",
    )
    same = "same bytes" if first == other else "other bytes"
    return f"same seed, same bytes; another seed, {same}"


def augment_surrogate(subject: Subject) -> str:
    """Require that the batch keeps its shape, lies within [0, 1] and repeats."""
    x, _ = subject.batch()

    def call(method: Any, ctx: Context) -> Tensor:
        with untouched({"x": x}), no_global_draw("augment_surrogate"):
            out = method.augment_surrogate(x, ctx)
        _images(out, x, "augment_surrogate")
        require(
            len(out) == len(x), f"augment_surrogate returned {len(out)} images for {len(x)} images"
        )
        return out  # type: ignore[no-any-return]

    require_repeats("augment_surrogate", subject.calls(0, call), subject.calls(1, call))
    return f"{len(x)} images"


def augment(subject: Subject) -> str:
    """Require images within [0, 1] and labels of a known form, which repeat."""
    x, y = subject.batch()

    def call(method: Any, ctx: Context) -> tuple[Tensor, Tensor]:
        with untouched({"x": x, "y": y}), no_global_draw("augment"):
            new_x, new_y = as_pair(method.augment(x, y, ctx))
        _images(new_x, x, "augment")
        require(
            len(new_x) == len(new_y),
            f"augment returned {len(new_x)} images with {len(new_y)} labels",
        )
        _labels(new_y, subject.data.info.num_classes)
        return new_x, new_y

    found = subject.calls(0, call)
    require_repeats("augment", found, subject.calls(1, call))
    new_x, new_y = found[0]
    kind = str(new_y.dtype).removeprefix("torch.")
    return f"{len(new_x)} images, labels {kind} {tuple(new_y.shape)}"


def loss(subject: Subject) -> str:
    """Require a finite scalar that repeats and whose gradient reaches all weights.

    The network must stay in training mode.
    """
    x, y = subject.augmented()

    def series(shared: int) -> list[float]:
        model = _network(subject)

        def call(method: Any, ctx: Context) -> float:
            with untouched({"x": x, "y": y}), no_global_draw("loss"):
                value = method.loss(model, x, y, ctx)
            _scalar(value)
            _still_training(model)
            if ctx.epoch == 0:
                model.zero_grad(set_to_none=True)
                value.backward()
                _gradients(model)
            return float(value.detach())

        return subject.calls(shared, call)

    found = series(0)
    require_repeats("loss", found, series(1))
    return f"{found[0]:.4f} on a fresh network, gradients reach all weights"


def smoothed_labels(subject: Subject) -> str:
    """Require that the loss takes float labels (B, K), as with protocols that smooth labels."""
    x, y = subject.augmented()
    soft = smoothed(y, subject.data.info.num_classes, 0.1)
    model = _network(subject)

    def call(method: Any, ctx: Context) -> float:
        with no_global_draw("loss"):
            return float(method.loss(model, x, soft, ctx).detach())

    value, *_ = subject.calls(0, call)
    require(math.isfinite(value), f"loss is {value} on float labels (B, K)")
    return f"{value:.4f} on float labels (B, K)"


def at_test(subject: Subject) -> str:
    """Require images of the same shape within [0, 1], which repeat.

    An image must not depend on the batch around it.
    """
    x, _ = subject.batch()

    def call(method: Any, ctx: Context) -> Tensor:
        with untouched({"x": x}), torch.no_grad(), no_global_draw("at_test"):
            return method.at_test(x)  # type: ignore[no-any-return]

    out, *others = subject.calls(0, call) + subject.calls(1, call)
    _images(out, x, "at_test")
    require(len(out) == len(x), f"at_test returned {len(out)} images for {len(x)}")
    require(
        all(torch.equal(out, again) for again in others),
        "at_test gives other images the second time; the accuracy would change with it",
    )
    with torch.no_grad():
        half = subject.build().at_test(x[: BATCH // 2])
    difference = float((half - out[: BATCH // 2]).abs().max())
    require(
        difference < 1.5 * LEVEL,
        f"at_test changes an image by {difference:.3f} with the batch around it; "
        "treat images one by one",
    )
    return "images unchanged" if torch.equal(out, x) else "changes test images"


def _network(subject: Subject) -> nn.Module:
    return build_victim("resnet10_w16", subject.data.info, subject.context(0).seed("init")).train()


def _scalar(value: object) -> None:
    require(
        isinstance(value, Tensor) and value.shape == (),
        f"loss returned {_described(value)}, expected a tensor of shape ()",
    )
    assert isinstance(value, Tensor)
    require(bool(torch.isfinite(value)), f"loss is {float(value.detach())} on a fresh network")
    require(
        value.requires_grad,
        "loss carries no gradient; do not detach it or compute it under no_grad",
    )


def _still_training(model: nn.Module) -> None:
    require(
        all(module.training for module in model.modules()),
        "loss leaves the model in eval mode; use frozen of benchmark",
    )
    require(
        all(weight.requires_grad for weight in model.parameters()),
        "loss leaves weights frozen; use frozen of benchmark",
    )


def _gradients(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        require(
            weight.grad is not None,
            f"no gradient reaches {name}; the loss must be computed with the model it is given",
        )
        assert weight.grad is not None
        require(bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")
    total = sum(
        float(weight.grad.abs().sum()) for weight in model.parameters() if weight.grad is not None
    )
    require(total > 0, "all gradients are zero; the loss does not depend on the model")


def _images(out: object, x: Tensor, hook: str) -> None:
    require(
        isinstance(out, Tensor) and out.dtype == x.dtype,
        f"{hook} returned {_described(out)}, expected {_described(x)}",
    )
    assert isinstance(out, Tensor)
    sides = ", ".join(map(str, x.shape[1:]))
    require(
        out.shape[1:] == x.shape[1:],
        f"{hook} returned images {tuple(out.shape)}, expected (B, {sides})",
    )
    require(bool(torch.isfinite(out).all()), f"{hook} returned values that are not finite")
    low, high = float(out.min()), float(out.max())
    require(
        low >= -1e-4 and high <= 1 + 1e-4,
        f"{hook} returned values from {low:.3f} to {high:.3f}, expected [0, 1]; clamp them",
    )


def _labels(y: Tensor, classes: int) -> None:
    if y.dtype == torch.int64 and y.ndim == 1:
        require(
            int(y.min()) >= 0 and int(y.max()) < classes,
            f"augment returned labels outside 0..{classes - 1}",
        )
        return
    require(
        y.is_floating_point() and y.shape[1:] == (classes,),
        f"augment returned labels {_described(y)}, expected int64 (B,) or float (B, {classes})",
    )
    sums = y.sum(1)
    require(
        bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-4)) and float(y.min()) >= 0,
        "label rows must be >= 0 and sum to 1",
    )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


@contextmanager
def untouched(tensors: dict[str, Tensor]) -> Iterator[None]:
    """Raise at the end if one of the tensors was changed in place."""
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        require(
            torch.equal(tensor, copies[name]), f"changes its input {name} in place; work on a copy"
        )
