"""Contract tests on one attack or defense, ours or a stranger's: does it keep the promises of its kind?

They run on a small toy set. A method that trains a network says in its decorator how to be quick
here, for example ``toy={"surrogate": "resnet10_w16", "max_rounds": 2}``. Of a method that needs
what ``toy`` cannot hold, such as the path of a file, only the card and the documentation are looked
at.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.registry import Card, Registry
from benchmark.catalogue.spec import Spec, Value
from benchmark.data import DatasetInfo, ImageSet, to_float
from benchmark.running.verify import verify_poison, verify_purified
from benchmark.training.train import build_victim, smoothed

KINDS: dict[str, type] = {"attack": Attack, "defense": Defense}
BATCH = 16  # images of the batch that augment, loss and at_test get
LEVEL = 1 / 255


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The outcome of one contract test; ``detail`` says what was seen, or what is wrong and what to do."""

    name: str
    passed: bool
    detail: str


@dataclasses.dataclass
class Subject:
    """A method under test (None if it cannot be built), with its card, its toy images and what it made of them with seed 0."""

    card: Card
    cls: type
    method: Any
    data: ImageSet
    registry: Registry
    first: Any = None

    def context(self, seed: int, scratch: Path | None = None) -> Context:
        return Context(
            seed_axes=("check", self.card.kind, self.card.name, seed),
            scratch=scratch,
            registry=self.registry,
        )

    def run(self, seed: int) -> Any:
        """What ``poison`` or ``purify`` returns for one seed, in a fresh scratch folder."""
        with tempfile.TemporaryDirectory(prefix="uebench-check-") as folder:
            act = self.method.poison if self.card.kind == "attack" else self.method.purify
            return act(self.data, self.context(seed, Path(folder)))

    def batch(self) -> tuple[Tensor, Tensor]:
        """A training batch: float (B, C, H, W) in [0, 1] and int64 (B,)."""
        return to_float(self.data.x[:BATCH]).to(memory_format=torch.channels_last), self.data.y[
            :BATCH
        ].clone()


def toy_set(classes: int = 10, per_class: int = 6, size: int = 32, seed: int = 0) -> ImageSet:
    """Striped colour images, uint8 (classes * per_class, 3, size, size), whose hue and stripe direction tell the class.

    A small network learns them in a few dozen steps. Classes alternate, and the values reach both ends of the range.
    """
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(classes), per_class)
    angle = (y / classes)[:, None, None]
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    along = rows * np.sin(np.pi * angle) + columns * np.cos(np.pi * angle)
    stripes = np.sin(2 * np.pi * (along / 8 + rng.random((len(y), 1, 1))))[:, None]  # (N, 1, H, W)
    hue = np.cos(2 * np.pi * ((y / classes)[:, None] + np.arange(3) / 3))[:, :, None, None]
    light = rng.uniform(0.35, 0.65, (len(y), 1, 1, 1))
    x = light + 0.2 * stripes + 0.2 * hue + rng.normal(0, 0.08, (len(y), 3, size, size))
    info = DatasetInfo(
        "toy", classes, tuple(f"class {i}" for i in range(classes)), 3, size, size, hflip=False
    )
    return ImageSet(
        torch.from_numpy((x.clip(0, 1) * 255).round().astype(np.uint8)),
        torch.from_numpy(y.astype(np.int64)),
        info,
    )


def check_method(
    kind: str, name: str, registry: Registry, given: Mapping[str, Value] | None = None
) -> list[CheckResult]:
    """Runs the contract tests on one method.

    A test that cannot run because an earlier one failed is left out, and so is all that needs an instance of a method with
    required parameters that neither ``toy`` nor ``given`` holds.

    Args:
        kind: ``attack`` or ``defense``.
        given: parameters beside those of ``toy``.

    Raises:
        ValueError: for another kind, or a name that the registry does not know or cannot read.
    """
    if kind not in KINDS:
        raise ValueError(f'cannot check a "{kind}"; expected attack or defense')
    card = registry.card(kind, name)
    results: list[CheckResult] = []
    made: list[Subject] = []
    results.append(
        _attempt("build", lambda: _build(card, registry, {} if given is None else given, made))
    )
    if not made:
        return results
    subject = made[0]
    steps: list[tuple[str, Callable[[Subject], str]]] = [
        ("card", _card),
        ("documentation", _documentation),
    ]
    if subject.method is None:
        return results + [_attempt(title, partial(step, subject)) for title, step in steps]
    if kind == "attack":
        steps += [("units", _units), ("poison", _output)]
    else:
        steps += [("independence", _independence), ("purify", _output), ("augment", _augment)]
        steps += [("loss", _loss), ("smoothed labels", _smoothed_labels), ("at_test", _at_test)]
    results += [_attempt(title, partial(step, subject)) for title, step in steps]
    if all(result.passed for result in results if result.name in ("poison", "purify")):
        results += [_attempt("seed", partial(_seed, subject))]
    return results


def _attempt(name: str, step: Callable[[], str]) -> CheckResult:
    try:
        with torch.random.fork_rng(devices=[]):
            return CheckResult(name, True, step())
    except (
        Exception
    ) as error:  # a stranger's method may raise anything; each becomes a line of the report
        kind = "" if type(error) in (ValueError, TypeError) else f"{type(error).__name__}: "
        return CheckResult(name, False, f"{kind}{error}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _build(card: Card, registry: Registry, given: Mapping[str, Value], made: list[Subject]) -> str:
    cls = registry.load(card.kind, card.name)
    base = KINDS[card.kind]
    _require(
        issubclass(cls, base),
        f"{cls.__name__} does not derive from {base.__name__}; one file holds one method",
    )
    toy = Spec(card.name, {**cls.toy, **given})
    if missing := [
        param.name
        for param in card.params.values()
        if param.required and param.name not in toy.params
    ]:
        made.append(Subject(card, cls, None, toy_set(), registry))
        return f"not built, since it needs {', '.join(missing)} and toy does not say; only its card and documentation are checked"
    made.append(
        Subject(
            card,
            cls,
            registry.build(card.kind, registry.resolve(card.kind, toy)),
            toy_set(),
            registry,
        )
    )
    return f"builds as {toy}"


def _card(subject: Subject) -> str:
    """Planning reads the source and running uses the class; the two must agree, or keys would name something else."""
    card, cls = subject.card, subject.cls
    runtime = {item.name: item for item in dataclasses.fields(cls)}
    _require(
        list(runtime) == list(card.params),
        f"the file shows parameters {list(card.params)} but the class has {list(runtime)}; declare all of them in the class itself",
    )
    for name, param in card.params.items():
        default = runtime[name].default
        same = (
            default is dataclasses.MISSING
            if param.required
            else (type(default), default) == (type(param.default), param.default)
        )
        _require(
            same,
            f"parameter {name}: the file shows {param.default!r} but the class has {default!r}",
        )
    for name in ("version", "cite") + (("files",) if card.kind == "attack" else ("needs",)):
        seen, has = getattr(card, name), getattr(cls, name)
        _require(
            seen == has,
            f"{name}: the file shows {seen!r} but the class has {has!r}; write a literal in the class itself",
        )
    hooks = ("poison",) if card.kind == "attack" else ("purify", "augment", "loss", "at_test")
    own = {name for name in hooks if getattr(cls, name) is not getattr(KINDS[card.kind], name)}
    _require(
        own == card.overrides & set(hooks),
        f"the class overrides {sorted(own)} but its body defines {sorted(card.overrides & set(hooks))}; define them in the class itself",
    )
    return f"{len(runtime)} parameters, overrides {', '.join(sorted(own)) or 'nothing'}"


def _documentation(subject: Subject) -> str:
    card = subject.card
    _require(
        bool(card.summary.strip()),
        f"class {subject.cls.__name__} has no docstring; its first line is what `list` shows",
    )
    _require(
        bool(card.cite.strip()),
        'cite is empty; name the source, for example cite="arXiv:2301.13838"',
    )
    _require(card.version >= 1, f"version is {card.version}, expected at least 1")
    if card.kind == "defense":
        for need in card.needs:
            known = re.fullmatch(r"(clean|pairs):[1-9]\d*|pretrained:\S.*", need)
            _require(
                known is not None,
                f'needs "{need}", expected clean:<count>, pairs:<count> or pretrained:<on what>',
            )
    return card.summary


def _units(subject: Subject) -> str:
    """An L-inf or L2 budget is a float in [0, 1] units; an integer such as 8 would be read as 8 * 255 levels."""
    card = subject.card
    _require(
        card.norm in ("linf", "l2", "l0", "none"),
        f'norm is "{card.norm}", expected linf, l2, l0 or none',
    )
    if (eps := card.params.get("eps")) is not None and card.norm in ("linf", "l2"):
        _require(
            eps.type == "float", f"eps is of type {eps.type}; declare eps: float, in [0, 1] units"
        )
    if card.norm == "none":
        return "no bound"
    budget = subject.method.budget(subject.data.info)
    _require(isinstance(budget, float), f"budget is a {type(budget).__name__}, expected a float")
    most = 1.0 if card.norm == "linf" else float(subject.data.info.size)
    _require(
        0 < budget <= most,
        f"budget {budget:g} in {card.norm}, expected more than 0 and at most {most:g}; write 8 / 255, not 8",
    )
    return f"budget {budget:.6g} in {card.norm}"


def _output(subject: Subject) -> str:
    """Shapes, range, labels, order, budget; the input and the global random state stay as they were."""
    with _untouched({"images": subject.data.x, "labels": subject.data.y}):
        before = _global_random_state()
        subject.first = subject.run(0)
        after = _global_random_state()
    changed = [name for name in before if before[name] != after[name]]
    _require(
        not changed,
        f"draws from the global generator of {', '.join(changed)}; take ctx.generator(purpose) or ctx.seed(purpose)",
    )
    check = verify_poison if subject.card.kind == "attack" else verify_purified
    facts = check(subject.data, subject.first, subject.method)
    return ", ".join(f"{name} {value:.4g}" for name, value in facts.items() if value is not None)


def _seed(subject: Subject) -> str:
    """The same seed gives the same bytes. Another seed is tried and reported, since a method need not be random."""
    first, again, other = (
        made.fingerprint for made in (subject.first, subject.run(0), subject.run(1))
    )
    _require(
        first == again,
        "two runs with one seed differ; draw from ctx.generator(purpose) only, and keep no state outside the method",
    )
    return "same seed, same bytes; another seed, " + (
        "same bytes" if first == other else "other bytes"
    )


def _independence(subject: Subject) -> str:
    """A defense does not learn whom it faces: it takes no attack as parameter and imports none."""
    named = [name for name in subject.card.params if "attack" in name.lower()]
    _require(not named, f"parameters {named} name an attack; a defender cannot know whom it faces")
    for node in ast.walk(ast.parse(subject.card.file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        for module in modules:
            _require(
                module.partition(".")[0] != "attacks",
                f"imports {module}; share code through benchmark, not through an attack",
            )
    return "knows no attack"


def _augment(subject: Subject) -> str:
    x, y = subject.batch()
    with _untouched({"x": x, "y": y}):
        new_x, new_y = subject.method.augment(x, y, subject.context(0))
    _images(new_x, x, "augment")
    _require(
        len(new_x) == len(new_y), f"augment returned {len(new_x)} images with {len(new_y)} labels"
    )
    _labels(new_y, subject.data.info.num_classes)
    return f"{len(new_x)} images, labels {str(new_y.dtype).removeprefix('torch.')} {tuple(new_y.shape)}"


def _loss(subject: Subject) -> str:
    ctx = subject.context(0)
    model = build_victim("resnet10_w16", subject.data.info, ctx.seed("init"))
    model.train()
    x, y = subject.method.augment(*subject.batch(), ctx)
    with _untouched({"x": x, "y": y}):
        loss = subject.method.loss(model, x, y, ctx)
    _require(
        isinstance(loss, Tensor) and loss.shape == (),
        f"loss returned {_described(loss)}, expected a tensor of shape ()",
    )
    _require(bool(torch.isfinite(loss)), f"loss is {float(loss.detach())} on a fresh network")
    _require(
        all(module.training for module in model.modules()),
        "loss leaves the model in eval mode; use benchmark.training.gradients.frozen",
    )
    _require(
        all(weight.requires_grad for weight in model.parameters()),
        "loss leaves weights frozen; use benchmark.training.gradients.frozen",
    )
    _require(
        loss.requires_grad, "loss carries no gradient; do not detach it or compute it under no_grad"
    )
    model.zero_grad(set_to_none=True)
    loss.backward()
    _gradients(model)
    return f"{float(loss.detach()):.4f} on a fresh network, gradients reach all weights"


def _smoothed_labels(subject: Subject) -> str:
    """The loss takes float labels (B, K), which protocols that smooth labels give."""
    ctx = subject.context(0)
    model = build_victim("resnet10_w16", subject.data.info, ctx.seed("init"))
    model.train()
    x, y = subject.method.augment(*subject.batch(), ctx)
    loss = float(
        subject.method.loss(model, x, smoothed(y, subject.data.info.num_classes, 0.1), ctx).detach()
    )
    _require(math.isfinite(loss), f"loss is {loss} on float labels (B, K)")
    return f"{loss:.4f} on float labels (B, K)"


def _at_test(subject: Subject) -> str:
    x, _ = subject.batch()
    with _untouched({"x": x}), torch.no_grad():
        out = subject.method.at_test(x)
        again = subject.method.at_test(x)
        half = subject.method.at_test(x[: BATCH // 2])
    _images(out, x, "at_test")
    _require(len(out) == len(x), f"at_test returned {len(out)} images for {len(x)}")
    _require(
        torch.equal(out, again),
        "at_test gives other images the second time; the accuracy would change with it",
    )
    difference = float((half - out[: BATCH // 2]).abs().max())
    _require(
        difference < 1.5 * LEVEL,
        f"at_test changes an image by {difference:.3f} with the batch around it; treat images one by one",
    )
    return "images unchanged" if torch.equal(out, x) else "changes test images"


def _images(out: object, x: Tensor, hook: str) -> None:
    _require(
        isinstance(out, Tensor) and out.dtype == x.dtype,
        f"{hook} returned {_described(out)}, expected {_described(x)}",
    )
    assert isinstance(out, Tensor)
    _require(
        out.shape[1:] == x.shape[1:],
        f"{hook} returned images {tuple(out.shape)}, expected (B, {', '.join(map(str, x.shape[1:]))})",
    )
    _require(bool(torch.isfinite(out).all()), f"{hook} returned values that are not finite")
    low, high = float(out.min()), float(out.max())
    _require(
        low >= -1e-4 and high <= 1 + 1e-4,
        f"{hook} returned values from {low:.3f} to {high:.3f}, expected [0, 1]; clamp them",
    )


def _labels(y: Tensor, classes: int) -> None:
    if y.dtype == torch.int64 and y.ndim == 1:
        _require(
            int(y.min()) >= 0 and int(y.max()) < classes,
            f"augment returned labels outside 0..{classes - 1}",
        )
        return
    _require(
        y.is_floating_point() and y.shape[1:] == (classes,),
        f"augment returned labels {_described(y)}, expected int64 (B,) or float (B, {classes})",
    )
    sums = y.sum(1)
    _require(
        bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-4)) and float(y.min()) >= 0,
        "label rows must be >= 0 and sum to 1",
    )


def _gradients(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        _require(
            weight.grad is not None,
            f"no gradient reaches {name}; the loss must be computed with the model it is given",
        )
        assert weight.grad is not None
        _require(bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")
    total = sum(
        float(weight.grad.abs().sum()) for weight in model.parameters() if weight.grad is not None
    )
    _require(total > 0, "all gradients are zero; the loss does not depend on the model")


def _described(value: object) -> str:
    return (
        f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )


@contextmanager
def _untouched(tensors: dict[str, Tensor]) -> Iterator[None]:
    """Raises at the end if one of the tensors was changed in place."""
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        _require(
            torch.equal(tensor, copies[name]), f"changes its input {name} in place; work on a copy"
        )


def _global_random_state() -> dict[str, object]:
    legacy = np.random.get_state()  # noqa: NPY002 - the global state itself is what is looked at
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr((legacy[1].tobytes(), legacy[2:]))
        if isinstance(legacy, tuple)
        else repr(legacy),
        "random": random.getstate(),
    }
