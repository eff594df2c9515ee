"""Keys of a plan: what enters them, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.registry import FOLDERS, Registry
from benchmark.catalogue.spec import Spec
from benchmark.planning import jobs as jobs_module
from benchmark.planning.jobs import TrainJob
from benchmark.planning.plan import make_plan
from support.small_plans import (
    cell_fields,
    content,
    planned,
    roles,
    suite,
)

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
