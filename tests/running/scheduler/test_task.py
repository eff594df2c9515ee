"""Tasks cross the pipe to the worker whole, and nothing that is not understood is passed over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.planning.plan import make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import Suite, resolve_suite
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.scheduler.task import Task

MACHINE = Machine("cuda:1", "/data", ("a.py", "b.py"), 3)


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    suite = Suite(
        name="s",
        attacks=("tap+em[granularity=class]", "file[path=x.pt]"),
        defenses=("none", "dvae", "at"),
        ratios=(0.5,),
    )
    registry = Registry()
    plan = make_plan(resolve_suite(suite, registry), registry, str, "bf16", lambda path: "content")
    assert {stage.kind for stage in plan.stages} == {"surrogate", "poison", "purify", "train"}
    return list(plan.stages)


def test_a_task_comes_back_as_it_was(stages: list[Stage]) -> None:
    for stage in stages:
        task = Task(stage, MACHINE)
        back = Task.from_json(task.to_json())
        assert back == task
        assert json.dumps(back.stage.job.identity()) == json.dumps(stage.job.identity())


def change(value: dict[str, Any], path: str, new: object) -> None:
    *way, last = path.split(".")
    for name in way:
        value = value[name]
    value[last] = new


@pytest.mark.parametrize(
    "path",
    [
        "more",
        "stage.more",
        "machine.more",
        "stage.job.more",
        "stage.job.data.more",
        "stage.job.defense.spec.more",
        "stage.job.protocol.more",
    ],
)
def test_an_unknown_field_is_refused_by_name(path: str, stages: list[Stage]) -> None:
    values = json.loads(Task(stages[-1], MACHINE).to_json())
    change(values, path, 1)
    with pytest.raises(ValueError, match=r"^1 validation error(.|\n)*more"):
        Task.from_json(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("stage.job.ratio", "0.5", "stage.job.train.ratio"),
        ("stage.job.seed", None, "stage.job.train.seed"),
        ("stage.job.kind", "test", "stage.job"),
        ("stage.inputs", "abc", "stage.inputs"),
    ],
)
def test_a_wrong_type_is_refused_by_name(
    path: str, new: object, message: str, stages: list[Stage]
) -> None:
    values = json.loads(Task(stages[-1], MACHINE).to_json())
    change(values, path, new)
    with pytest.raises(ValueError, match=f"^1 validation error(.|\n)*{message}"):
        Task.from_json(json.dumps(values).encode())
