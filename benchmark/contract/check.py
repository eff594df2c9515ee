"""Test that one attack or defense, built-in or third-party, honours the contract of its kind.

The tests run on a small toy set. A method that trains a network gives quick parameters for them in
its decorator, for example ``toy={"surrogate": "resnet10_w16", "max_rounds": 2}``. A method may need
a parameter that ``toy`` cannot hold, such as the path of a file. Then only its card and its
documentation are checked.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmark.api import Attack, Defense
from benchmark.catalogue.registry import Card, Registry
from benchmark.catalogue.spec import Spec, Value
from benchmark.contract import hooks
from benchmark.contract.hooks import Subject, require
from benchmark.data import DatasetInfo, ImageSet
from benchmark.running.crash import own_crash_line
from benchmark.running.deterministic import deterministic
from benchmark.running.global_random import BUILD, IMPORT, import_seeded, seeded

KINDS: dict[str, type] = {"attack": Attack, "defense": Defense}


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The outcome of one contract test.

    Attributes:
        name: the name of the test.
        passed: whether the method passes it.
        detail: what the test found, or what is wrong and what to do.
        where: the line of the method's file at which it crashed, such as
            ``mine.py:12: return x / 0``; empty if it did not crash.
        traceback: the full traceback of the crash; empty if it did not crash.
    """

    name: str
    passed: bool
    detail: str
    where: str = ""
    traceback: str = ""


def toy_set(classes: int = 10, per_class: int = 6, size: int = 32, seed: int = 0) -> ImageSet:
    """Make striped colour images, uint8 (classes * per_class, 3, size, size).

    Hue and direction of the stripes tell the class. A small network learns them in a few dozen
    steps. Classes alternate, and the values reach both ends of the range.
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
    """Run the contract tests on one method.

    A test is left out if an earlier one that it builds on failed. If neither ``toy`` nor ``given``
    holds a required parameter, all tests that need an instance are left out.

    Args:
        kind: ``attack`` or ``defense``.
        name: the registered name of the method.
        registry: finds the method and its plugins.
        given: parameters in addition to those of ``toy``.

    Raises:
        ValueError: for another kind, or a name that the registry does not know or cannot read.
    """
    if kind not in KINDS:
        raise ValueError(f'cannot check a "{kind}"; expected attack or defense')
    card = registry.card(kind, name)
    attempt = partial(_attempt, plugins=registry.plugins)
    made: list[Subject] = []
    results = [attempt("build", lambda: _build(card, registry, given or {}, made))]
    if not made:
        return results
    subject = made[0]
    steps: list[tuple[str, Callable[[Subject], str]]] = [
        ("card", _card),
        ("documentation", _documentation),
    ]
    if subject.spec is None:
        return results + [attempt(title, partial(step, subject)) for title, step in steps]
    if kind == "attack":
        steps.append(("units", _units))
        if "check" in card.overrides:
            steps.append(("check", _check))
        steps.append(("poison", hooks.output))
        if "augment_surrogate" in card.overrides:
            steps.append(("augment_surrogate", hooks.augment_surrogate))
    else:
        steps += [("independence", _independence), ("purify", hooks.output)]
        steps += [("augment", hooks.augment), ("loss", hooks.loss)]
        steps += [("smoothed labels", hooks.smoothed_labels), ("at_test", hooks.at_test)]
    results += [attempt(title, partial(step, subject)) for title, step in steps]
    made_right = all(result.passed for result in results if result.name in ("poison", "purify"))
    if subject.first is not None and made_right:
        results.append(attempt("seed", partial(hooks.seed, subject)))
    return results


def _attempt(name: str, step: Callable[[], str], plugins: tuple[Path, ...]) -> CheckResult:
    try:
        with deterministic(), seeded(0):
            return CheckResult(name, True, step())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: foreign code must not end the check
        kind = "" if type(error) in (ValueError, TypeError) else f"{type(error).__name__}: "
        where = own_crash_line(error, plugins)
        trace = traceback.format_exc() if where else ""
        return CheckResult(name, False, f"{kind}{error}", where, trace)


def _build(card: Card, registry: Registry, given: Mapping[str, Value], made: list[Subject]) -> str:
    hooks.refuse_draws(IMPORT, import_seeded(card.kind, card.name, registry))
    cls = registry.load(card.kind, card.name)
    base = KINDS[card.kind]
    require(
        issubclass(cls, base),
        f"{cls.__name__} does not derive from {base.__name__}; one file holds one method",
    )
    toy = Spec(card.name, {**cls.toy, **given})
    required = [param.name for param in card.params.values() if param.required]
    if missing := [name for name in required if name not in toy.params]:
        made.append(Subject(card, cls, None, toy_set(), registry))
        return (
            f"not built, since it needs {', '.join(missing)} and toy does not say; "
            "only its card and documentation are checked"
        )
    subject = Subject(card, cls, registry.resolve(card.kind, toy), toy_set(), registry)
    with hooks.no_global_draw(BUILD):
        subject.build()
    made.append(subject)
    return f"builds as {toy}"


def _card(subject: Subject) -> str:
    """Require that the source, which planning reads, agrees with the class, which runs.

    Otherwise the keys would name something else than what runs.
    """
    card, cls = subject.card, subject.cls
    runtime = {item.name: item for item in dataclasses.fields(cls)}
    require(
        list(runtime) == list(card.params),
        f"the file shows parameters {list(card.params)} but the class has {list(runtime)}; "
        "declare them in the class or in a base class of the same file",
    )
    for name, param in card.params.items():
        default = runtime[name].default
        if param.required:
            same = default is dataclasses.MISSING
        else:
            same = (type(default), default) == (type(param.default), param.default)
        require(
            same,
            f"parameter {name}: the file shows {param.default!r} but the class has {default!r}",
        )
    for name in ("version", "cite", "files" if card.kind == "attack" else "needs"):
        seen, has = getattr(card, name), getattr(cls, name)
        require(
            seen == has,
            f"{name}: the file shows {seen!r} but the class has {has!r}; "
            "write a literal in the decorator",
        )
    known = ("poison",) if card.kind == "attack" else ("purify", "augment", "loss", "at_test")
    own = {name for name in known if getattr(cls, name) is not getattr(KINDS[card.kind], name)}
    seen = card.overrides & set(known)
    require(
        own == seen,
        f"the class overrides {sorted(own)} but its file defines {sorted(seen)}; "
        "define them in the class or in a base class of the same file",
    )
    return f"{len(runtime)} parameters, overrides {', '.join(sorted(own)) or 'nothing'}"


def _documentation(subject: Subject) -> str:
    """Require a summary, a source, a version and needs of a known form."""
    card = subject.card
    require(
        bool(card.summary.strip()),
        f"class {subject.cls.__name__} has no docstring; its first line is what `list` shows",
    )
    require(
        bool(card.cite.strip()),
        'cite is empty; name the source, for example cite="arXiv:2301.13838"',
    )
    require(card.version >= 1, f"version is {card.version}, expected at least 1")
    if card.kind == "defense":
        for need in card.needs:
            known = re.fullmatch(r"(clean|pairs):[1-9]\d*|pretrained:\S.*", need)
            require(
                known is not None,
                f'needs "{need}", expected clean:<count>, pairs:<count> or pretrained:<on what>',
            )
    return card.summary


def _units(subject: Subject) -> str:
    """Require that an L-inf or L2 budget is a float in [0, 1] units.

    An integer such as 8 would mean 8 * 255 levels.
    """
    card = subject.card
    require(
        card.norm in ("linf", "l2", "l0", "none"),
        f'norm is "{card.norm}", expected linf, l2, l0 or none',
    )
    if (eps := card.params.get("eps")) is not None and card.norm in ("linf", "l2"):
        require(
            eps.type == "float", f"eps is of type {eps.type}; declare eps: float, in [0, 1] units"
        )
    if card.norm == "none":
        return "no bound"
    budget = subject.build().budget(subject.data.info)
    require(isinstance(budget, float), f"budget is a {type(budget).__name__}, expected a float")
    most = 1.0 if card.norm == "linf" else float(subject.data.info.size)
    require(
        0 < budget <= most,
        f"budget {budget:g} in {card.norm}, expected more than 0 and at most {most:g}; "
        "write 8 / 255, not 8",
    )
    return f"budget {budget:.6g} in {card.norm}"


def _check(subject: Subject) -> str:
    """Require that ``check`` does not crash. It may refuse the toy set, with a ValueError."""
    with hooks.no_global_draw("check"):
        try:
            subject.build().check(subject.data.info)
        except ValueError as error:
            return f"refuses the toy set: {error}"
    return "accepts the toy set"


def _independence(subject: Subject) -> str:
    """Require that a defense takes no attack as a parameter and imports none."""
    named = [name for name in subject.card.params if "attack" in name.lower()]
    require(not named, f"parameters {named} name an attack; a defender cannot know whom it faces")
    for node in ast.walk(ast.parse(subject.card.file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        for module in modules:
            require(
                module.partition(".")[0] != "attacks",
                f"imports {module}; share code through benchmark, not through an attack",
            )
    return "knows no attack"
