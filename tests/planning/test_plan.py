"""Planning: the cells and stages of a suite, their inputs, seeds and costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.keys import digest
from benchmark.planning.jobs import PurifyJob, TrainJob
from benchmark.planning.plan import Cell
from benchmark.storage.record import Record
from support.small_plans import (
    BOTH,
    SHIFT,
    WIGGLE,
    cell_fields,
    planned,
    roles,
)


def test_a_cell_named_twice_runs_once(methods: Registry) -> None:
    plan = planned(methods, attacks=["shift", "shift[by=3]"], defenses=["none", "squeeze"])
    assert [str(cell.attack) for cell in plan.cells] == ["shift", "shift"]
    assert [skip.reason for skip in plan.skips] == [
        "the suite names this cell twice; it runs once"
    ] * 2
    assert (
        plan.skips[1].what
        == "embedded / shift[by=3] at ratio 1 / squeeze / resnet10_w16 / quick / seed 0"
    )
    assert len(plan.stages) == 4
    assert len(planned(methods, ratios=[1, 1.0]).cells) == 6


def test_the_anchors_are_ordinary_cells(methods: Registry) -> None:
    plan = planned(methods)
    stages = {stage.key: stage for stage in plan.stages}
    cells = {(cell.attack.name, cell.defense.name): cell for cell in plan.cells}
    assert list(cells) == [
        (attack, defense)
        for attack in ("none", "shift")
        for defense in ("none", "squeeze", "wiggle")
    ]

    def kinds(cell: Cell) -> list[str]:
        return [stages[key].kind for key in cell.stages]

    assert kinds(cells["none", "none"]) == kinds(cells["shift", "none"]) == ["poison", "train"]
    # the price of the defense on clean data
    assert kinds(cells["none", "squeeze"]) == ["poison", "purify", "train"]
    assert (
        cells["none", "none"].stages[0]
        == cells["none", "squeeze"].stages[0]
        == cells["none", "wiggle"].stages[0]
    )
    assert all(cell.key == cell.stages[-1] for cell in plan.cells)


def test_shared_stages_are_planned_once(methods: Registry) -> None:
    plan = planned(
        methods,
        seeds=[0, 1, 2],
        victims=["resnet10_w16", "resnet18"],
        defenses=["none", "squeeze", "wiggle", "both"],
    )
    counts = [
        sum(stage.kind == kind for stage in plan.stages) for kind in ("poison", "purify", "train")
    ]
    assert counts == [2, 4, 2 * 4 * 3 * 2]
    assert len({stage.key for stage in plan.stages}) == len(plan.stages)


def test_each_name_is_resolved_once_whatever_the_number_of_cells(
    methods: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    resolve = methods.resolve

    def watched(kind: str, spec: Spec, defaults: Any = None) -> Spec:
        asked.append(f"{kind} {spec}")
        return resolve(kind, spec, defaults)

    monkeypatch.setattr(methods, "resolve", watched)
    plan = planned(
        methods,
        attacks=["none", "shift+lsp"],
        seeds=list(range(20)),
        victims=["resnet10_w16", "resnet18"],
        ratios=[0.5, 1.0],
    )
    assert len(plan.cells) == (1 + 2) * 3 * 2 * 20
    assert sorted(asked) == [
        *("attack lsp", "attack none", "attack shift", "dataset embedded"),
        *("defense none", "defense squeeze", "defense wiggle"),
        *("victim resnet10_w16", "victim resnet18"),
    ]


def test_only_defenses_that_purify_have_a_purify_stage(methods: Registry) -> None:
    plan = planned(methods, defenses=["none", "squeeze", "wiggle", "both"])
    assert {cell.defense.name for cell in plan.cells if len(cell.stages) == 3} == {
        "squeeze",
        "both",
    }
    for stage in plan.stages:
        if isinstance(stage.job, TrainJob):
            poison, purify = stage.job.poison, stage.job.purify
            # the record holds the facts of both
            assert stage.inputs == ((poison,) if purify is None else (purify, poison))


def test_inputs_stand_before_what_reads_them(methods: Registry) -> None:
    plan = planned(
        methods,
        ratios=[0.2, 1],
        seeds=[0, 1],
        attacks=["shift", "none", "lsp"],
        defenses=["both", "wiggle", "none", "squeeze"],
    )
    seen: set[str] = set()
    for stage in plan.stages:
        assert set(stage.inputs) <= seen
        assert (
            len(stage.inputs)
            == {"poison": 0, "purify": 1, "train": 2 if getattr(stage.job, "purify", None) else 1}[
                stage.kind
            ]
        )
        seen.add(stage.key)
    assert {key for cell in plan.cells for key in cell.stages} == seen


def test_seeds_come_from_their_own_axes(methods: Registry) -> None:
    plan = planned(
        methods,
        seeds=[0, 1],
        attacks=["none", "shift", "shift[by=9]"],
        victims=["resnet10_w16", "resnet18"],
        ratios=[0.5, 1],
    )

    def axes(kind: str) -> set[str]:
        return {json.dumps(stage.job.seed_axes) for stage in plan.stages if stage.kind == kind}

    # one a seed: the same for every attack, defense and victim, so that they compare in pairs
    assert len(axes("train")) == 2
    assert len(axes("poison")) == 2  # one an attack, whatever its parameters
    assert len(axes("purify")) == 1  # one a defense, the same for every attack
    # a defender cannot know whom it faces
    assert not any("shift" in text for text in axes("purify") | axes("train"))
    assert axes("poison").isdisjoint(axes("purify"))
    mixes = {
        json.dumps(stage.job.mix_axes)
        for stage in plan.stages
        if isinstance(stage.job, (PurifyJob, TrainJob))
    }
    assert len(mixes) == 1  # one permutation, hence smaller ratios nest in larger ones
    crafted = {
        json.dumps(stage.job.seed_axes)
        for stage in planned(methods, craft_seed=1).stages
        if stage.kind != "train"
    }
    assert crafted.isdisjoint(axes("poison") | axes("purify"))


def test_each_victim_seed_can_have_poisons_and_purified_sets_of_its_own(methods: Registry) -> None:
    plan = planned(
        methods, attacks=["shift"], defenses=["squeeze"], seeds=[0, 3], craft_seed="seed"
    )
    trained = [cell_fields(stage) for stage in plan.stages if stage.kind == "train"]
    assert [(cell["seed"], cell["craft_seed"]) for cell in trained] == [(0, 0), (3, 3)]
    alone = [
        planned(methods, attacks=["shift"], defenses=["squeeze"], seeds=seed, craft_seed=seed)
        for seed in (0, 3)
    ]
    # so both find each other's results
    assert {stage.key for stage in plan.stages} == {
        stage.key for part in alone for stage in part.stages
    }
    assert [stage.label for stage in plan.stages if stage.kind != "train"] == [
        "poison shift, craft seed 0",
        "purify shift with squeeze, craft seed 0",
        "poison shift, craft seed 3",
        "purify shift with squeeze, craft seed 3",
    ]


def test_clean_data_run_once_whatever_the_poison_ratios(methods: Registry) -> None:
    plan = planned(methods, ratios=[0, 0.2, 1], defenses="squeeze")
    assert [(cell.attack.name, cell.ratio) for cell in plan.cells] == [
        ("none", 1.0),
        ("shift", 0.2),
        ("shift", 1.0),
    ]
    assert [(skip.what.split(" / ")[1], skip.reason) for skip in plan.skips] == [
        ("none at ratio 0", "clean data are the same at every poison ratio; they run once"),
        ("none at ratio 0.2", "clean data are the same at every poison ratio; they run once"),
        ("shift at ratio 0", 'ratio 0 is clean data; the attack "none" covers it'),
    ]
    assert roles(planned(methods, ratios=[0.2], attacks="none")) == roles(
        planned(methods, attacks="none")
    )
    assert str(plan.cells[1]).endswith("seed 0 / ratio 0.2")


def test_a_train_stage_holds_the_record_as_far_as_it_is_known(methods: Registry) -> None:
    plan = planned(
        methods, attacks="shift[eps=4/255]", defenses="squeeze", ratios=0.5, craft_seed=2, seeds=3
    )
    (cell,) = plan.cells
    record = Record.from_json(cell_fields(plan.stages[-1]))
    assert (record.key, record.dataset, record.attack, record.defense) == (
        cell.key,
        "embedded",
        "shift[eps=4/255]",
        "squeeze",
    )
    assert (record.ratio, record.seed, record.craft_seed, record.precision) == (0.5, 3, 2, "fp32")
    assert record.attack_spec == {
        "name": "shift",
        "version": 1,
        "params": {"eps": 4 / 255, "by": 3},
    }
    assert record.defense_spec == {"name": "squeeze", "version": 1, "params": {"levels": 4}}
    assert record.dataset_spec["fingerprint"] == "content of embedded"
    assert record.protocol_spec["epochs"] == 10
    assert [stage.label for stage in plan.stages] == [
        "poison shift[eps=4/255]",
        "purify shift[eps=4/255] with squeeze",
        "train shift[eps=4/255] + squeeze",
    ]
    assert digest(record.identity) == record.key
    assert record.test_acc is None


def test_costs_order_the_work(registry: Registry) -> None:
    plan = planned(
        registry, attacks=["none", "lsp"], defenses=["none", "jpeg", "vae", "dvae", "at"]
    )
    cost = {stage.label: stage.cost for stage in plan.stages}
    assert cost["train lsp + at"] > cost["train lsp + none"] == cost["train lsp + dvae"] == 10
    assert (
        cost["purify lsp with dvae"]
        > cost["purify lsp with vae"]
        > cost["purify lsp with jpeg"]
        > 0
    )
    assert cost["poison lsp"] > 0
    stronger = planned(registry, attacks="none", defenses="at", parameters={"at": {"steps": 20}})
    assert stronger.stages[-1].cost > cost["train none + at"]
    longer = planned(registry, attacks="none", defenses="none", protocol_values={"epochs": 30})
    assert longer.stages[-1].cost == 3 * cost["train none + none"]


def test_effort_is_passes_for_each_unit_of_a_parameter(tmp_path: Path) -> None:
    for name, source, effort in (
        ("shift", SHIFT, '{"": 1.5, "by": 2.0}'),
        ("wiggle", WIGGLE, '{"amount": 3.0}'),
        ("both", BOTH, '{"levels": 1.0}'),
    ):
        declared = source.replace('cite="nobody"', f'cite="nobody", effort={effort}')
        (tmp_path / f"{name}.py").write_text(declared, encoding="utf-8")
    registry = Registry(tuple(tmp_path / f"{name}.py" for name in ("shift", "wiggle", "both")))
    plan = planned(registry, attacks="shift[by=4]", defenses=["none", "wiggle", "both"])
    cost = {stage.label: stage.cost for stage in plan.stages}
    assert cost["poison shift[by=4]"] == pytest.approx(0.05 + 1.5 + 2.0 * 4)
    # counts for each epoch of the victim
    assert cost["train shift[by=4] + wiggle"] == pytest.approx(10 * (1 + 3.0 * 0.5))
    assert cost["purify shift[by=4] with both"] == pytest.approx(0.05 + 4.0)
    assert cost["train shift[by=4] + both"] == 10  # it has paid when purifying


def test_names_that_are_not_there_are_refused(methods: Registry) -> None:
    with pytest.raises(ValueError, match='unknown attack "shft"; did you mean "shift"'):
        planned(methods, attacks="shft")
    with pytest.raises(
        ValueError, match='defense "squeeze" has no parameter "level"; did you mean "levels"'
    ):
        planned(methods, parameters={"squeeze": {"level": 2}})
    with pytest.raises(ValueError, match='unknown protocol "quik"'):
        planned(methods, protocols="quik")
