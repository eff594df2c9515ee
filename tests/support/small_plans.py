"""Four small methods and plans of them, for tests of the planner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.planning.jobs import TrainJob
from benchmark.planning.plan import Plan, make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import ResolvedSuite, Suite, resolve_suite

SHIFT = '''
from benchmark import Attack, attack

@attack(version=1, cite="nobody")
class Shift(Attack):
    """Move every value."""
    eps: float = 8 / 255
    by: int = 3
'''
SQUEEZE = '''
from benchmark import Defense, defense

@defense(version=1, cite="nobody")
class Squeeze(Defense):
    """Purify with few levels."""
    levels: int = 4

    def purify(self, data, ctx):
        return data
'''
WIGGLE = '''
from benchmark import Defense, defense

@defense(version=1, cite="nobody")
class Wiggle(Defense):
    """Act during training only."""
    amount: float = 0.5

    def augment(self, x, y, ctx):
        return x, y
'''
BOTH = SQUEEZE.replace("Squeeze", "Both") + "\n    def at_test(self, x):\n        return x\n"


def small_methods(folder: Path) -> Registry:
    """Return the project's methods and four small ones, which tests read but never run."""
    files = []
    for name, source in (
        ("shift", SHIFT),
        ("squeeze", SQUEEZE),
        ("wiggle", WIGGLE),
        ("both", BOTH),
    ):
        files.append(folder / f"{name}.py")
        files[-1].write_text(source, encoding="utf-8")
    return Registry(tuple(files))


# All values of a protocol, so that keys do not move when a named protocol is tuned.
SETTINGS: dict[str, Any] = {
    **{
        "epochs": 10,
        "batch_size": 128,
        "lr": 0.2,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "nesterov": True,
        "warmup": 0.25,
    },
    **{
        "schedule": "onecycle",
        "crop": 2,
        "flip": True,
        "clip": 5.0,
        "precision": "auto",
        "label_smoothing": 0.0,
    },
}


def suite(
    registry: Registry, *, protocol_values: dict[str, Any] | None = None, **axes: Any
) -> ResolvedSuite:
    base = {
        "name": "small",
        "datasets": "embedded",
        "attacks": ["none", "shift"],
        "defenses": ["none", "squeeze", "wiggle"],
        "victims": "resnet10_w16",
        "protocols": "quick",
    }
    written = Suite.model_validate(
        {**base, **axes, "protocol_values": {**SETTINGS, **(protocol_values or {})}}
    )
    return resolve_suite(written, registry)


def content(spec: Spec) -> str:
    """Stand in for the fingerprint of a data set."""
    return f"content of {spec.name}"


def planned(
    registry: Registry,
    *,
    precision: str = "fp32",
    fingerprint: Callable[[Spec], str] = content,
    **axes: Any,
) -> Plan:
    return make_plan(suite(registry, **axes), registry, fingerprint, precision)


def roles(plan: Plan) -> dict[str, str]:
    """Return role -> key: ``poison A``, ``purify A D``, ``train A D``.

    The plan has one data set, victim, protocol, ratio and seed.
    """
    kinds = {stage.key: stage.kind for stage in plan.stages}
    named: dict[str, str] = {}
    for cell in plan.cells:
        for key in cell.stages:
            about = (
                cell.attack.name
                if kinds[key] == "poison"
                else f"{cell.attack.name} {cell.defense.name}"
            )
            named[f"{kinds[key]} {about}"] = key
    return named


def cell_fields(stage: Stage) -> dict[str, Any]:
    assert isinstance(stage.job, TrainJob)
    return stage.job.record(stage.key).to_json()
