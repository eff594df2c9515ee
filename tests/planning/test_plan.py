"""Planning: the cells and stages of a suite, what enters keys, seeds, skips and costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.registry import FOLDERS, Registry
from benchmark.catalogue.spec import Spec
from benchmark.keys import digest
from benchmark.planning import jobs as jobs_module
from benchmark.planning.jobs import PurifyJob, TrainJob
from benchmark.planning.plan import Cell, Plan, make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import ResolvedSuite, Suite, resolve_suite
from benchmark.storage.record import Record

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


@pytest.fixture
def methods(tmp_path: Path) -> Registry:
    """Return the project's methods and four small ones, which the tests read but never run."""
    files = []
    for name, source in (
        ("shift", SHIFT),
        ("squeeze", SQUEEZE),
        ("wiggle", WIGGLE),
        ("both", BOTH),
    ):
        files.append(tmp_path / f"{name}.py")
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


BASE_ROLES = (
    *("poison none", "poison shift", "purify none squeeze", "purify shift squeeze"),
    *(
        f"train {attack} {defense}"
        for attack in ("none", "shift")
        for defense in ("none", "squeeze", "wiggle")
    ),
)


GOLDEN = {
    "poison none": "08c3b95fcb5b330f",
    "train none none": "497b9187f5b17f64",
    "purify none squeeze": "bdde621204c01572",
    "train none squeeze": "d62a42d21c567f61",
    "train none wiggle": "cb5316343caca4db",
    "poison shift": "770722779819361d",
    "train shift none": "395d5d6aa812f607",
    "purify shift squeeze": "9b645ccc4e447bb0",
    "train shift squeeze": "72b0ff7f2ab29b34",
    "train shift wiggle": "bc0a209edfd38a77",
}


def test_a_plan_is_a_pure_function_of_its_arguments(methods: Registry, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    asked: list[str] = []

    def fingerprint(spec: Spec) -> str:
        asked.append(str(spec))
        return content(spec)

    first = planned(methods, fingerprint=fingerprint)
    again = planned(Registry(methods.plugins))
    assert first == again
    assert asked == ["embedded"]
    assert sorted(tmp_path.iterdir()) == before


def test_keys_of_a_small_suite_stay_as_they_are(
    methods: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These keys name results on people's disks.

    If this test fails, either undo the change or raise CORE_VERSION on purpose.
    """
    own = {  # as methods of the project: the files of plugins are in keys
        kind: {name: replace(card, content="") for name, card in methods.cards(kind).items()}
        for kind in FOLDERS
    }
    monkeypatch.setattr(methods, "cards", own.__getitem__)
    assert {role: key[:16] for role, key in roles(planned(methods)).items()} == GOLDEN
    assert all(
        len(stage.key) == 64 and int(stage.key, 16) >= 0 for stage in planned(methods).stages
    )


def test_the_rest_of_a_suite_moves_no_key(methods: Registry) -> None:
    base = roles(planned(methods))
    assert set(base) == set(BASE_ROLES)
    for axes in (
        {"defenses": ["wiggle", "both", "squeeze", "none"], "attacks": ["shift", "lsp", "none"]},
        {"name": "other", "about": "the name and the words do not count"},
        {"parameters": {"both": {"levels": 9}, "lsp": {"patch": 4}}},
        # the defaults, written out
        {"parameters": {"squeeze": {"levels": 4}, "shift": {"eps": "8/255"}}},
        {"protocol_values": {"epochs": 10}},
    ):
        larger = roles(planned(methods, **axes))
        assert {role: larger[role] for role in base} == base, axes
    more = planned(
        methods,
        seeds=[0, 5],
        victims=["resnet18", "resnet10_w16"],
        ratios=[0.5, 1.0],
        datasets=["cifar10", "embedded"],
    )
    assert set(base.values()) < {stage.key for stage in more.stages}
    only = planned(methods, attacks="shift", defenses="wiggle")
    assert roles(only) == {role: base[role] for role in ("poison shift", "train shift wiggle")}


ALL = set(BASE_ROLES)
TRAINS = {role for role in ALL if role.startswith("train")}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"attacks": ["none", "shift[by=4]"]}, {role for role in ALL if "shift" in role}),
        ({"parameters": {"shift": {"eps": "7/255"}}}, {role for role in ALL if "shift" in role}),
        (
            {"defenses": ["none", "squeeze[levels=5]", "wiggle"]},
            {role for role in ALL if "squeeze" in role},
        ),
        ({"parameters": {"wiggle": {"amount": 0.25}}}, {role for role in ALL if "wiggle" in role}),
        ({"seeds": 1}, TRAINS),
        ({"victims": "resnet18"}, TRAINS),
        *(
            ({"protocol_values": {name: value}}, TRAINS)
            for name, value in (
                ("epochs", 11),
                ("lr", 0.3),
                ("flip", False),
                ("clip", 0.0),
                ("label_smoothing", 0.1),
            )
        ),
        # the poison and the defense keep the machine's own precision
        ({"protocol_values": {"precision": "bf16"}}, TRAINS),
        ({"precision": "bf16"}, ALL),
        ({"craft_seed": 1}, ALL),
        ({"datasets": "embedded[train_per_class=10]"}, ALL),
        ({"datasets": "embedded[test_per_class=10]"}, ALL),
        ({"datasets": "embedded[subset_seed=1]"}, ALL),
        ({"ratios": 0.5}, {role for role in ALL if "shift" in role} - {"poison shift"}),
    ],
)
def test_a_changed_axis_moves_exactly_the_keys_that_depend_on_it(
    change: dict[str, Any], changed: set[str], methods: Registry
) -> None:
    base, other = roles(planned(methods)), roles(planned(methods, **change))
    assert set(base) == set(other)
    assert {role for role in base if base[role] != other[role]} == changed


@pytest.mark.parametrize(
    ("kind", "name"),
    [("attack", "shift"), ("defense", "squeeze"), ("defense", "wiggle"), ("defense", "none")],
)
def test_a_raised_version_moves_the_keys_of_its_method(
    kind: str, name: str, methods: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = roles(planned(methods))
    raised = {**methods.cards(kind), name: replace(methods.card(kind, name), version=2)}
    monkeypatch.setattr(
        methods, "cards", lambda asked: raised if asked == kind else Registry.cards(methods, asked)
    )
    other = roles(planned(methods))
    position = {"attack": 1, "defense": 2}[kind]
    concerned = {role for role in base if role.split()[position : position + 1] == [name]}
    assert concerned
    assert {role for role in base if base[role] != other[role]} == concerned


def test_the_data_the_machine_and_the_core_are_in_every_key(
    methods: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = set(roles(planned(methods)).values())
    assert not base & set(roles(planned(methods, fingerprint=lambda spec: "other images")).values())
    assert not base & set(roles(planned(methods, precision="bf16")).values())
    monkeypatch.setattr(jobs_module, "CORE_VERSION", jobs_module.CORE_VERSION + 1)
    assert not base & set(roles(planned(methods)).values())


def test_a_precision_given_by_the_suite_does_not_depend_on_the_machine(methods: Registry) -> None:
    fixed = [
        make_plan(suite(methods, precision="fp32"), methods, content, machine)
        for machine in ("fp32", "bf16")
    ]
    assert fixed[0] == fixed[1]
    # auto, resolved, is the same as the precision written out
    assert roles(fixed[0]) == roles(planned(methods, precision="fp32"))
    assert {
        cell_fields(stage)["precision"] for stage in fixed[0].stages if stage.kind == "train"
    } == {"fp32"}


def cell_fields(stage: Stage) -> dict[str, Any]:
    assert isinstance(stage.job, TrainJob)
    return stage.job.record(stage.key).to_json()


def test_content_names_a_data_set_and_its_label_does_not(methods: Registry) -> None:
    here, there = (
        planned(methods, datasets=f"folder[path={path}]", fingerprint=lambda spec: "same")
        for path in ("/here", "/there")
    )
    assert roles(here) == roles(there)
    assert {str(cell.dataset) for cell in there.cells} == {"folder[path=/there]"}


def test_labels_are_not_in_keys(methods: Registry) -> None:
    short = planned(methods)
    long = planned(
        methods,
        attacks=["none", "shift[by=3,eps=8/255]"],
        defenses=["none", "squeeze[levels=4]", "wiggle[amount=0.5]"],
    )
    assert roles(short) == roles(long)
    assert (
        str(long.cells[4])
        == "embedded / shift[by=3,eps=8/255] / squeeze[levels=4] / resnet10_w16 / quick / seed 0"
    )
    assert "shift[by=3,eps=8/255]" in {
        cell_fields(stage)["attack"] for stage in long.stages if stage.kind == "train"
    }


def test_equal_settings_under_another_protocols_name_are_the_same_training(
    methods: Registry,
) -> None:
    quick, lite = (planned(methods, protocols=name) for name in ("quick", "lite"))
    assert roles(quick) == roles(lite)
    assert {cell.protocol.name for cell in lite.cells} == {"lite"}
    smoothing = {
        stage.job.protocol.label_smoothing
        for stage in quick.stages
        if isinstance(stage.job, TrainJob)
    }
    assert smoothing == {0.0}  # though quick has more


def test_a_named_protocol_brings_its_own_settings(methods: Registry) -> None:
    bare = replace(
        suite(methods, attacks="none", defenses="none"),
        protocols=(get_protocol("std60"), get_protocol("lite")),
    )
    first, second = make_plan(bare, methods, content, "fp32").cells
    assert (first.protocol, second.protocol) == (get_protocol("std60"), get_protocol("lite"))
    assert first.key != second.key


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
