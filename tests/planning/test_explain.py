"""Why a cell would run: the differences of each stage from the nearest result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmark.catalogue.registry import ROOT, Registry
from benchmark.planning.explain import (
    Known,
    Reason,
    explain,
    find_cells,
    known_artifact,
    known_record,
)
from benchmark.planning.jobs import PoisonJob, TrainJob
from benchmark.planning.plan import Plan, make_plan
from benchmark.planning.suite import Suite, resolve_suite
from benchmark.storage.store import Store

IMAGES = "a" * 64


def planned(registry: Registry, fingerprint: str = IMAGES, **axes: Any) -> Plan:
    base = {
        "name": "small",
        "attacks": "em",
        "defenses": "jpeg",
        "victims": "resnet10_w16",
        "protocols": "quick",
        "protocol_values": {"epochs": 2},
    }
    suite = resolve_suite(Suite.model_validate({**base, **axes}), registry)
    return make_plan(suite, registry, lambda spec: fingerprint, "fp32")


def stored(*plans: Plan) -> list[Known]:
    """Return the results of plans as a store lists them."""
    found = []
    for plan in plans:
        for stage in plan.stages:
            if isinstance(stage.job, TrainJob):
                found.append(known_record(stage.job.record(stage.key)))
            else:
                about = {"label": stage.label, "identity": stage.job.identity()}
                known = known_artifact(stage.key, about)
                assert known is not None
                found.append(known)
    return found


def reasons(
    plan: Plan, known: list[Known], done: set[str] | None = None, cell: str = ""
) -> list[Reason]:
    (chosen,) = find_cells(plan, cell) if cell else plan.cells
    keys = {result.key for result in known} if done is None else done
    return explain(chosen, {stage.key: stage for stage in plan.stages}, keys, known)


def differences(found: list[Reason]) -> dict[str, tuple[str, ...]]:
    """Return label -> differences, for the stages that would run."""
    assert all(reason.nearest for reason in found if reason.state == "differs")
    return {reason.label: reason.differences for reason in found if reason.state == "differs"}


def test_what_is_there_is_cached_and_says_no_more(registry: Registry) -> None:
    plan = planned(registry)
    assert reasons(plan, stored(plan)) == [Reason("train em + jpeg", "cached")]


def test_where_nothing_is_alike_everything_is_new(registry: Registry) -> None:
    """Parameters of another attack or another defense mean other things."""
    plan = planned(registry)
    every = [Reason(stage.label, "new") for stage in plan.stages]
    assert [reason.label for reason in every] == [
        "poison em",
        "purify em with jpeg",
        "train em + jpeg",
    ]
    assert reasons(plan, []) == every
    assert (
        reasons(plan, stored(planned(registry, attacks=["none", "lsp", "em+lsp"])))[1:] == every[1:]
    )
    poison, *others = reasons(plan, stored(planned(registry, defenses="grayscale")))
    assert poison == Reason("poison em", "cached")
    assert others == every[1:]


POISON, PURIFY, TRAIN = "poison em", "purify em with jpeg", "train em + jpeg"


@pytest.mark.parametrize(
    ("change", "poison", "purify", "train"),
    [
        ({"protocol_values": {"epochs": 3}}, (), (), ("protocol.epochs: 2 -> 3",)),
        ({"victims": "resnet18"}, (), (), ("victim.name: resnet10_w16 -> resnet18",)),
        ({"seeds": 4}, (), (), ("seed: 0 -> 4",)),
        (
            {"parameters": {"jpeg": {"quality": 20}}},
            (),
            ("defense.quality: 10 -> 20",),
            ("input: see above", "defense.quality: 10 -> 20"),
        ),
        (
            {"parameters": {"em": {"max_rounds": 7}}},
            ("attack.max_rounds: 100 -> 7",),
            ("poison: see above",),
            ("input: see above",),
        ),
        (
            {"ratios": 0.5},
            (),
            ("ratio: 1.0 -> 0.5",),
            ("input: see above", "ratio: 1.0 -> 0.5"),
        ),
        (
            {"craft_seed": 1},
            ("seed: 0 -> 1",),
            ("poison: see above", "seed: 0 -> 1"),
            ("input: see above",),
        ),
        (
            {"fingerprint": "b" * 64},
            ("data.fingerprint",),
            ("poison: see above",),
            ("data.fingerprint", "input: see above"),
        ),
    ],
    ids=["epochs", "victim", "seed", "defense", "attack", "ratio", "craft seed", "data"],
)
def test_a_difference_is_named_where_it_enters(
    change: dict[str, Any],
    poison: tuple[str, ...],
    purify: tuple[str, ...],
    train: tuple[str, ...],
    registry: Registry,
) -> None:
    found = differences(reasons(planned(registry, **change), stored(planned(registry))))
    told = {POISON: poison, PURIFY: purify, TRAIN: train}
    assert found == {label: parts for label, parts in told.items() if parts}


def test_versions_and_plugins_are_told(registry: Registry) -> None:
    before, after = planned(registry), planned(registry)
    stages = {stage.key: stage for stage in after.stages}
    for stage in after.stages:
        if isinstance(stage.job, PoisonJob):
            raised = replace(stage.job.attack, version=2, content="c" * 64)
            stages[stage.key] = replace(stage, job=replace(stage.job, attack=raised))
        elif isinstance(stage.job, TrainJob):
            victim = replace(stage.job.victim, version=3)
            stages[stage.key] = replace(stage, job=replace(stage.job, victim=victim))
    found = differences(explain(after.cells[0], stages, (), stored(before)))
    assert found[POISON] == ("attack.version: 1 -> 2", "attack.content")
    assert found[TRAIN] == ("victim.version: 1 -> 3",)


def test_a_surrogate_is_the_first_of_the_chain(registry: Registry) -> None:
    before = planned(registry, attacks="tap", defenses="none")
    after = planned(registry, attacks="tap[surrogate_epochs=3]", defenses="none")
    found = differences(reasons(after, stored(before)))
    assert list(found.values()) == [
        ("surrogate_epochs: 40 -> 3",),
        ("attack.surrogate_epochs: 40 -> 3", "surrogate: see above"),
        ("input: see above",),
    ]


def test_the_nearest_result_differs_least_with_its_inputs(registry: Registry) -> None:
    far = planned(registry, protocol_values={"epochs": 9}, victims="resnet18")
    other = planned(registry, parameters={"em": {"max_rounds": 7, "lr": 0.2}})
    near = planned(registry, seeds=3)
    plan = planned(registry, seeds=4)
    for plans in ((far, other, near), (near, other, far)):
        *_, train = reasons(plan, stored(*plans))
        assert (train.nearest, train.differences) == ("em + jpeg, seed 3", ("seed: 3 -> 4",))


def test_stages_that_nobody_needs_are_left_out(registry: Registry) -> None:
    before, plan = planned(registry, attacks="tap"), planned(registry, attacks="tap", seeds=1)
    known = stored(before)
    gone = {stage.key for stage in before.stages if stage.kind == "surrogate"}
    done = {result.key for result in known} - gone
    assert [reason.state for reason in reasons(plan, known, done)] == [
        "cached",
        "cached",
        "differs",
    ]


def test_results_from_before_identities_were_stored(registry: Registry) -> None:
    """The planner compares what such records say, and it can read the committed ones."""
    before = planned(registry, attacks="em+lsp")
    records = [
        replace(stage.job.record(stage.key), identity={}, artifacts={"poison": "a", "purify": "b"})
        for stage in before.stages
        if isinstance(stage.job, TrainJob)
    ]
    plan = planned(registry, attacks="em+lsp", seeds=2, parameters={"lsp": {"patch": 4}})
    found = explain(
        plan.cells[0],
        {stage.key: stage for stage in plan.stages},
        (),
        list(map(known_record, records)),
    )
    assert [reason.state for reason in found] == ["new", "new", "new", "differs"]
    assert found[-1].differences == ("input: see above", "seed: 0 -> 2")
    same = explain(
        before.cells[0],
        {stage.key: stage for stage in before.stages},
        (),
        list(map(known_record, records)),
    )
    assert same[-1].differences == ("something that older results do not say",)
    old = known_artifact("k", {"kind": "poison", "method": {"kind": "attack", "name": "em"}})
    assert old is not None
    assert (old.whole, old.identity) == (False, {"stage": "poison", "attack": {"name": "em"}})
    assert known_artifact("k", {"kind": "poison"}) is None
    committed = list(Store(ROOT / "results" / "baselines" / "store").records())
    assert len([known_record(record) for record in committed]) == len(committed) > 10


def test_a_record_whose_images_are_gone_is_still_compared_by_its_methods(
    registry: Registry,
) -> None:
    records = [
        known for known in stored(planned(registry, attacks=["lsp", "em"])) if " + " in known.label
    ]
    found = reasons(planned(registry, seeds=1), records)
    assert [reason.state for reason in found] == ["new", "new", "differs"]
    assert found[-1].nearest == "em + jpeg, seed 0"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("em + jpeg", 4),
        ("em+jpeg", 4),
        ("em+lsp + jpeg", 4),
        (" em  +  lsp+jpeg ", 4),
        ("em + jpeg, seed 1", 2),
        ("em + jpeg,seed 1,resnet18", 1),
        ("em + jpeg[quality=30,test=true], seed 0", 2),
    ],
)
def test_cells_are_named_as_people_see_them(text: str, count: int, registry: Registry) -> None:
    plan = planned(
        registry,
        attacks=["em", "em+lsp"],
        defenses=["jpeg", "jpeg[quality=30,test=true]"],
        seeds=[0, 1],
        victims=["resnet10_w16", "resnet18"],
    )
    assert len(find_cells(plan, text)) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("em + jpg", 'there is no cell "em + jpg" in small; did you mean "em + jpeg"'),
        ("", 'there is no cell "" in small; expected one such as "none [+] jpeg", "em [+] jpeg"'),
        ("em + jpeg, seed 7", '"em [+] jpeg" has no cell with "seed 7"; it has embedded, .*seed 0'),
    ],
)
def test_an_unknown_cell_is_refused_with_near_ones(
    text: str, message: str, registry: Registry
) -> None:
    with pytest.raises(ValueError, match=message.replace("em + jp", "em [+] jp")):
        find_cells(planned(registry, attacks=["none", "em"]), text)
