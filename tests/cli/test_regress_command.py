"""Baseline and history as files, the commands, and the workflow that runs at night."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main
import yaml

from benchmark.analysis.baseline import (
    Night,
    append_night,
    night_of,
    read_baseline,
    read_history,
    write_baseline,
)
from benchmark.analysis.cells import cell_of
from benchmark.analysis.regression import compare
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.cli import main as cli
from benchmark.cli import regress as regress_command
from benchmark.cli import run as run_command
from benchmark.planning.jobs import TrainJob
from benchmark.planning.stage import Stage
from benchmark.planning.suite import load_suite
from benchmark.report import history as history_figure
from benchmark.running.scheduler.outcome import Outcome
from benchmark.storage.store import Store
from support.command_line import Call, Result, run_tiny
from support.made_up_nights import HERE, STEADY, THERE, night, record

# Baseline and history


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "some" / "toy.jsonl"
    records = [
        record("b", 0.5),
        record("a", 0.25, 1, needs=("clean:5",)),
        record("a", None),
        record("a", 0.75, facts={"psnr": math.inf}, loss_curve=(1.0,)),
    ]
    assert write_baseline(file, records) == 3
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(line["attack"], line["seed"]) for line in lines] == [("a", 0), ("a", 1), ("b", 0)]
    assert read_baseline(file) == [
        record("a", 0.75),
        record("a", 0.25, 1, needs=("clean:5",)),
        record("b", 0.5),
    ]
    assert compare(read_baseline(file), records).findings != ()
    assert read_baseline(tmp_path / "absent.jsonl") == []


def test_accepting_the_same_again_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "toy.jsonl"
    assert (
        write_baseline(
            file,
            [
                record("a", 0.5),
                record("a", 0.5, date="2026-12-01", environment={**HERE, "git": "def"}),
            ],
        )
        == 1
    )
    assert read_baseline(file)[0].date == "2026-12-01"
    assert (
        write_baseline(
            file, [*read_baseline(file), record("a", 0.5, environment=THERE), record("a", 0.6)]
        )
        == 3
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a list, expected an object"),
        ('{"schema": 99}', "update uebench"),
        ('{"schema": 1}', "incomplete record"),
    ],
)
def test_a_damaged_baseline_is_named_by_line(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "toy.jsonl"
    write_baseline(file, [record("a", 0.5)])
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"toy.jsonl, line 2: .*{message}"):
        read_baseline(file)


def test_nights_are_appended_and_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "toy" / "history.jsonl"
    nights = [
        night_of([*night(STEADY, date=f"2026-11-{day}T03:00:00Z"), record("a0", None, 9)])
        for day in (26, 27)
    ]
    for one in nights:
        append_night(file, one)
    assert read_history(file) == nights
    assert nights[0].date == "2026-11-26T03:00:00Z"
    assert nights[0].accuracies[cell_of(record("a0", 0.5))] == (0.5, 0.504, 0.508)
    assert night_of([record("a", None)]) == Night("", {})
    file.write_text('{"night": "x", "cells": [["toy", 0.5]]}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"history.jsonl, line 1: not a night"):
        read_history(file)


# The commands


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return knobs of stages that publish at once what a test says.

    The knobs are ``acc``, the accuracy of (attack, defense, seed), and an ``environment``.
    """
    world: dict[str, Any] = {
        "acc": lambda attack, defense, seed: 0.5 + 0.004 * seed,
        "environment": HERE,
        "date": "2026-11-26T03:00:00Z",
        "ran": [],
    }

    def run_plan(
        stages: Sequence[Stage], store: Store, *_: Any, policy: str = "missing", **__: Any
    ) -> Outcome:
        for stage in stages:
            job = stage.job
            if isinstance(job, TrainJob) and (policy == "force" or not store.has_record(stage.key)):
                cell = job.record(stage.key)
                acc = world["acc"](cell.attack, cell.defense, cell.seed)
                world["ran"].append((cell.attack, cell.defense, cell.seed))
                if acc is None:
                    store.publish_failure(stage.key, stage.label, "it broke", "", None)
                    continue
                store.publish_record(
                    replace(
                        cell,
                        test_acc=acc,
                        curve=(acc,),
                        environment=world["environment"],
                        date=world["date"],
                    )
                )
        return Outcome()

    world["run"] = run_plan
    monkeypatch.setattr("benchmark.running.scheduler.run.run_plan", run_plan)
    monkeypatch.setattr(run_command, "show_selection", lambda *_: True)
    monkeypatch.setattr(history_figure, "history", lambda *_: {"png": b"-"})
    return world


def test_a_suite_that_runs_again_is_exact(
    call: Call, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run, accept, compute all of it again and compare, with real stages."""
    monkeypatch.setattr(history_figure, "files", lambda figure: {"png": b"-", "pdf": b"-"})
    monkeypatch.setattr(run_command, "show_selection", lambda *_: True)
    args = (tiny, "--device", "cpu", "--attacks", "lsp", "--defenses", "none")
    assert run_tiny(call, *args).code == 0
    accepted = call("baseline", "accept", *args)
    assert (accepted.code, accepted.out) == (
        0,
        "results/baselines/tiny.jsonl holds 1 accepted runs\n",
    )
    file = tmp_path / "results" / "baselines" / "tiny.jsonl"
    # a thousand years ago
    file.write_text(
        file.read_text(encoding="utf-8").replace('"date": "2', '"date": "1'), encoding="utf-8"
    )
    assert run_tiny(call, *args, "--policy", "force").code == 0
    again = call("regress", *args)
    assert again.code == 0, again.out + again.err
    assert again.out.startswith("tiny: nothing that matters; 1 cells, 1 of them exact")
    names = {file.name for file in (tmp_path / "results" / "tiny").iterdir()}
    assert {"regress.md", "regress.xml", "history.jsonl", "history.png", "history.pdf"} <= names


def test_drift_failure_and_absence_make_the_exit_status(
    call: Call, tiny: str, tmp_path: Path, fake_runs: dict[str, Any]
) -> None:
    run_tiny(call, tiny)
    assert call("baseline", "accept", tiny).code == 0
    fake_runs["date"] = "2026-11-27T03:00:00Z"
    fake_runs["acc"] = lambda attack, defense, seed: (
        None if attack == "none" else 0.25 if defense == "grayscale" else 0.5
    )
    run_tiny(call, tiny, "--policy", "force")
    result = call("regress", tiny)
    assert result.code == 1
    assert (
        "lsp + grayscale: seed 0: accuracy 50.00 % to 25.00 % (-25.00 points), "
        "curve differs from epoch 1 on" in result.out
    )
    assert result.out.count("1 of 1 runs failed: it broke") == 2
    assert "3 findings that matter: 1 drift, 2 failed; 4 cells, 2 of them exact" in result.out
    cases = ElementTree.parse(tmp_path / "results" / "tiny" / "regress.xml").getroot()[0]
    assert (cases.get("failures"), cases.get("errors")) == ("1", "2")
    assert "# tiny: not fine" in (tmp_path / "results" / "tiny" / "regress.md").read_text(
        encoding="utf-8"
    )

    fewer = call("regress", tiny, "--attacks", "lsp")
    assert fewer.out.count("accepted, but no longer planned") == 2
    more = call("regress", tiny, "--seeds", "0-1")
    assert more.out.count("1 of 2 runs are not there") == 4


def test_a_suspect_is_run_again_with_seeds_that_nothing_has(
    call: Call, tiny: str, fake_runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (tiny, "--seeds", "0-2")
    call("run", *args)
    call("baseline", "accept", *args)
    fake_runs |= {"environment": THERE, "date": "2026-11-27T03:00:00Z"}
    fake_runs["acc"] = lambda attack, defense, seed: (
        0.5 + 0.004 * (seed % 3) - (0.05 if (attack, defense) == ("lsp", "grayscale") else 0)
    )
    call("run", *args, "--policy", "force")
    fake_runs["ran"].clear()

    unconfirmed = call("regress", *args, "--no-confirm")
    assert (unconfirmed.code, fake_runs["ran"]) == (1, [])
    assert "suspect toy" not in unconfirmed.out
    assert "lsp + grayscale: -5.00 points (50.40 % to 45.40 %" in unconfirmed.out

    assert "stale all cells together: 12 of 12 runs" in call("regress", *args, "--no-confirm").out
    result = call("regress", *args, "--again")
    assert result.code == 1
    assert "1 suspect cells: running them again with seeds [3, 4, 5]" in result.out
    assert fake_runs["ran"] == [("lsp", "grayscale", seed) for seed in (3, 4, 5)]
    assert "regression folder[" in result.out
    assert "with other seeds -5.00 points" in result.out

    # seeds given as a setting override the axis, but must not override those of the rerun
    fake_runs["ran"].clear()
    assert (
        "running them again with seeds [6, 7, 8]"
        in call("regress", tiny, "--set", "seeds=0-2", "--again").out
    )
    assert fake_runs["ran"] == [("lsp", "grayscale", seed) for seed in (6, 7, 8)]

    monkeypatch.setattr(
        "benchmark.running.scheduler.run.run_plan", lambda *_, **__: Outcome(interrupted=True)
    )
    assert call("regress", *args, "--again").code == 130
    monkeypatch.setattr("benchmark.running.scheduler.run.run_plan", fake_runs["run"])

    fake_runs["acc"] = lambda attack, defense, seed: 0.5 + 0.004 * (seed % 3)
    later = call("regress", *args, "--again")
    assert fake_runs["ran"][3:] == [("lsp", "grayscale", seed) for seed in (9, 10, 11)]
    assert later.code == 0
    assert "not confirmed folder[" in later.out
    history = read_history(Path("results/tiny/history.jsonl"))
    assert [night.date for night in history] == ["2026-11-27T03:00:00Z"]
    assert len(history[0].accuracies[next(iter(history[0].accuracies))]) == 3


def test_accepting_more_nights_and_more_machines(
    call: Call, tiny: str, fake_runs: dict[str, Any]
) -> None:
    call("run", tiny)
    call("baseline", "accept", tiny)
    fake_runs |= {"environment": THERE, "acc": lambda attack, defense, seed: 0.51}
    call("run", tiny, "--policy", "force")
    assert "holds 8 accepted runs" in call("baseline", "accept", tiny, "--add").out
    assert "4 of them exact" in call("regress", tiny).out
    assert "holds 4 accepted runs" in call("baseline", "accept", tiny).out
    fake_runs["acc"] = lambda attack, defense, seed: None if attack == "lsp" else 0.51
    call("run", tiny, "--policy", "force")
    partial = call("baseline", "accept", tiny)
    assert "2 of 4 runs have no result and are not accepted" in partial.err
    assert "holds 2 accepted runs" in partial.out


def test_what_cannot_be_compared_is_a_usage_error(
    call: Call, tiny: str, fake_runs: dict[str, Any]
) -> None:
    def message(result: Result) -> str:
        assert result.code == 2
        return result.err

    assert (
        "there is nothing to accept: none of the 4 runs of tiny has finished; run the suite first"
        in message(call("baseline", "accept", tiny))
    )
    assert "there is no baseline results/baselines/tiny.jsonl" in message(call("regress", tiny))
    call("run", tiny)
    call("baseline", "accept", tiny, "--baselines", "elsewhere")
    assert call("regress", tiny, "--baselines", "elsewhere").code == 1, (
        "they are the accepted runs themselves"
    )
    assert call("regress", tiny, "--baselines", "elsewhere", "--again").code == 0
    Path("elsewhere/tiny.jsonl").write_text("nonsense\n", encoding="utf-8")
    assert "tiny.jsonl, line 1: not JSON" in message(
        call("regress", tiny, "--baselines", "elsewhere")
    )


# What runs at night


def test_the_nightly_suite_is_quick_with_seeds(registry: Registry) -> None:
    nightly, quick = (load_suite(name, registry) for name in ("nightly", "quick"))
    assert (nightly.seeds, nightly.precision) == ((0, 1, 2), "fp32")
    # with the same parameters
    for ours, theirs in ((nightly.attacks, quick.attacks), (nightly.defenses, quick.defenses)):
        assert {str(spec): spec for spec in ours}.items() <= {str(s): s for s in theirs}.items()
    assert (nightly.datasets, nightly.victims, nightly.protocols) == (
        quick.datasets,
        quick.victims,
        quick.protocols,
    )


def test_the_workflow_is_valid_and_asks_for_little() -> None:
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "://" not in text
    steps = flow["jobs"]["nightly"]["steps"]
    assert all(
        step["uses"].startswith("actions/") and "@v" in step["uses"]
        for step in steps
        if "uses" in step
    )
    lines = [
        line.strip()
        for step in steps
        for line in step.get("run", "").splitlines()
        if "run_benchmark.py" in line
    ]
    assert [line.split()[2] for line in lines] == ["run", "baseline", "regress"]
    group: Any = typer.main.get_command(cli.app)
    for line in lines:
        _, _, *words = shlex.split(line.replace("$AGAIN", "--again").replace("$ADD", "--add"))
        command = group.commands[words[0]]
        if words[0] == "baseline":
            command, words = command.commands[words[1]], words[1:]
        command.make_context(words[0], words[1:])


def test_the_history_gets_each_finding_at_its_cell_and_the_common_one_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[history_figure.Found] = []

    def keep(
        known: Any, since: Any, nights: Any, title: Any, found: history_figure.Found
    ) -> dict[str, bytes]:
        given.append(found)
        return {}

    monkeypatch.setattr(history_figure, "history", keep)
    accepted = night({**STEADY, "drops": (0.5, 0.5, 0.5)})
    tonight = night(
        {
            **{name: tuple(acc - 0.02 for acc in accs) for name, accs in STEADY.items()},
            "drops": (0.4, 0.4, 0.4),
        },
        environment=THERE,
    )
    verdict = compare(accepted, tonight)
    regress_command._show(verdict, accepted, tonight, tmp_path, "toy", "regress toy")
    (found,) = given
    assert ("suspect", True) in found[None]
    assert {
        cell: [kind for kind, _ in kinds] for cell, kinds in found.items() if cell is not None
    } == {
        cell: [finding.kind for finding in verdict.findings if finding.cell == cell]
        for cell in {finding.cell for finding in verdict.findings} - {None}
    }
