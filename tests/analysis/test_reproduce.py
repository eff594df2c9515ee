"""The command of a record leads back to the record's key."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmark.analysis.reproduce import FOLDER, command
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.cli import main as cli
from benchmark.cli.options import Axes
from benchmark.planning.jobs import TrainJob
from benchmark.planning.plan import Plan, make_plan
from benchmark.planning.suite import Suite, load_suite, resolve_suite
from benchmark.storage.record import Record
from benchmark.storage.store import Store

WORDS = '''
from benchmark import Attack, Defense, attack, defense

@attack(version=3, cite="nobody")
class Words(Attack):
    """Take texts."""
    eps: float = 8 / 255
    text: str = ""
    other: str | None = None
    flag: bool = False

@defense(version=2, cite="nobody")
class Words2(Defense):
    """Take a text."""
    text: str = "x"
'''


@pytest.fixture
def methods(tmp_path: Path) -> Registry:
    (tmp_path / "words.py").write_text(WORDS, encoding="utf-8")
    return Registry((tmp_path / "words.py",))


def planned(registry: Registry, **axes: Any) -> Record:
    """Return the record, without results, of the one cell of a suite."""
    axes = {
        "attacks": "lsp",
        "defenses": "jpeg",
        "victims": "resnet10_w16",
        "protocols": "lite",
        **axes,
    }
    plan = make_plan(
        resolve_suite(Suite.model_validate({"name": "s", **axes}), registry),
        registry,
        lambda spec: "f" * 64,
        "bf16",
        lambda path: "content",
    )
    (job,) = (stage.job for stage in plan.stages if isinstance(stage.job, TrainJob))
    record = job.record(plan.cells[0].key)
    kinds = (("attack", record.attack_spec), ("defense", record.defense_spec))
    files = [registry.card(kind, spec["name"]).file for kind, spec in kinds]
    sources = {
        str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name: "sha"
        for file in files
    }
    return replace(record, sources=sources)


def plan_of_command(record: Record, registry: Registry) -> Plan:
    """Return the plan that the shell, the command line and the planner make of the command.

    The machine has another precision.
    """
    words = shlex.split(f"{command(record)} --seeds {record.seed}")
    assert words[:3] == ["python", "run_benchmark.py", "run"]
    run = typer.main.get_command(cli.app).commands["run"]  # type: ignore[attr-defined]
    given = run.make_context("run", words[3:]).params
    names = ("attacks", "defenses", "dataset", "victim", "protocol", "seeds")
    axes = Axes(**{name: given[name] for name in names}).given()
    suite = load_suite(given["suite"], registry, axes, given["settings"])
    assert given["results"] == Path(FOLDER)
    assert [file.name for file in given["plugin"] or ()] == [
        name for name in record.sources if "/" not in name
    ]
    return make_plan(
        suite,
        registry,
        lambda spec: str(record.dataset_spec["fingerprint"]),
        "fp32",
        lambda path: "content",
    )


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"attacks": "none", "defenses": "none"},
        {"attacks": "em[granularity=class]+ops", "defenses": "dvae[width=16]"},
        {"attacks": "lsp[patch=4]+lsp[patch=2]+em"},
        {
            "datasets": "embedded",
            "parameters": {
                "embedded": {"scenes": 6},
                "lsp": {"rms": "12/255"},
                "jpeg": {"quality": 30},
            },
        },
        {
            "datasets": "folder[path=my photos/of 'them'; $HOME,size=64,"
            "train_per_class=20,subset_seed=4]"
        },
        {"protocol_values": {"epochs": 3, "lr": 0.05, "flip": False, "schedule": "cosine"}},
        {"ratios": 0.3, "craft_seed": 7, "seeds": 11, "precision": "fp32"},
        {
            "attacks": "words",
            "parameters": {"words": {"text": "a,b[c]=d", "other": "", "flag": True}},
        },
        {"attacks": "words[text=5,other=none]+words[text=6,other=a]"},
        {"attacks": "words", "parameters": {"words": {"text": "--set x", "other": "a+b é\n*"}}},
        {"defenses": "at[norm=l2]"},
        {"defenses": "at[norm=l2,start=normal]"},
        {"attacks": "file[path=a+b.npy]", "parameters": {"file": {"index": "x,y.npy"}}},
    ],
    ids=lambda axes: next(iter(axes), "defaults"),
)
def test_the_command_leads_to_the_same_key(axes: dict[str, Any], methods: Registry) -> None:
    record = planned(methods, **axes)
    assert [cell.key for cell in plan_of_command(record, methods).cells] == [record.key]


def test_settings_of_the_suite_it_names_do_not_matter(registry: Registry) -> None:
    record = planned(registry, attacks="em", defenses="at")  # quick has values of its own for both
    assert [cell.key for cell in plan_of_command(record, registry).cells] == [record.key]


def test_records_that_come_with_the_repository(registry: Registry) -> None:
    """Some older records lack parameters of their data set or come from another method version."""
    records = list(Store(ROOT / "results" / "baselines" / "store").records())
    assert {bool(record.dataset_params) for record in records} == {True, False}
    for record in records:
        (made,) = (
            stage.job.record(stage.key).to_json()
            for stage in plan_of_command(record, registry).stages
            if isinstance(stage.job, TrainJob)
        )
        expected = json.loads(json.dumps(record.to_json()))
        for name in (
            "victim",
            "protocol",
            "ratio",
            "seed",
            "craft_seed",
            "precision",
            "dataset_spec",
            "protocol_spec",
        ):
            assert made[name] == expected[name], name
        for name in ("attack_spec", "defense_spec"):
            assert expected[name]["params"].items() <= made[name]["params"].items()
        if all(made[name] == expected[name] for name in ("attack_spec", "defense_spec")):
            assert made["key"] == record.key


def test_the_program_is_that_of_the_reader(registry: Registry) -> None:
    record = planned(registry)
    installed = command(record, "uebench")
    assert installed.startswith("uebench run quick --dataset ")
    assert command(record) == f"python run_benchmark.py {installed.removeprefix('uebench ')}"


def test_a_plugin_is_named(methods: Registry) -> None:
    text = command(planned(methods, attacks="words", defenses="jpeg"))
    assert " --plugin words.py " in text
    assert "--plugin" not in command(planned(methods))


@pytest.mark.parametrize("text", ["007", "None", "none", " blanks ", "8/255", "inf"])
def test_a_text_that_would_be_read_as_something_else_gives_no_command(
    text: str, methods: Registry
) -> None:
    """Such a text can only be a default in a method's source."""
    record = planned(methods, attacks="words")
    params = {**record.attack_spec["params"], "text": text}
    assert command(replace(record, attack_spec={**record.attack_spec, "params": params})) == ""


def test_two_methods_of_one_name_cannot_both_have_a_text_with_a_comma(methods: Registry) -> None:
    record = planned(methods, attacks="words+words", parameters={"words": {"text": "a,b"}})
    assert command(record) == ""


def test_a_record_that_says_too_little_gives_no_command(registry: Registry) -> None:
    record = planned(registry)
    assert command(record)
    assert (
        command(Record(key="k", dataset="d", attack="a", defense="b", victim="v", protocol="lite"))
        == ""
    )
    assert command(replace(record, protocol="gone")) == ""
    assert command(replace(record, dataset_params={}, dataset="no [spec")) == ""
    assert command(replace(record, protocol_spec={"dropout": 0.5})) == ""
