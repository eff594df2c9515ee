"""Regression nights: statistics against numbers by hand or by scipy, every kind of finding, the files, and the commands."""

from __future__ import annotations

import importlib
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typer.main
import yaml
from command_line import Call, Result, run_tiny
from matplotlib.figure import Figure
from scipy.stats import ttest_ind

from benchmark import cli
from benchmark.baseline import Night, append_night, night_of, read_baseline, read_history, write_baseline
from benchmark.plan import Stage
from benchmark.record import Record
from benchmark.registry import ROOT, Registry
from benchmark.regression import Kind, Verdict, cell_of, compare
from benchmark.report import history as history_figure
from benchmark.report.regression import headline, junit, markdown
from benchmark.scheduler import Outcome
from benchmark.shifts import MIN_STD, Spread, adjusted, common_shift, cusum, shift, spreads
from benchmark.store import Store
from benchmark.suite import load_suite

GOLDEN = Path(__file__).parent / "golden"
HERE = {"torch": "2.14.1", "device": "A CPU", "device_type": "cpu", "threads": 1}
THERE = {**HERE, "torch": "2.15.0"}


def record(attack: str, acc: float | None, seed: int = 0, **values: Any) -> Record:
    fields: dict[str, Any] = {
        "key": f"{attack}/{seed}",
        "status": "failed" if acc is None else "ok",
        "dataset": "toy",
        "victim": "net",
        "protocol": "quick",
        "defense": "none",
        "curve": () if acc is None else (acc / 2, acc),
        "seconds": {"train": 10.0},
        "artifacts": {"poison": f"{attack} images"},
        "attack_spec": {"name": attack, "version": 1, "params": {"eps": 0.5}},
        "environment": HERE,
        "date": "2026-11-26T03:00:00Z",
        "sources": {"attacks/a.py": "1"},
    }
    return Record(**fields | {"attack": attack, "test_acc": acc, "seed": seed} | values)


def night(levels: dict[str, Sequence[float | None]], **values: Any) -> list[Record]:
    """A record for each attack and seed."""
    return [record(attack, acc, seed, **values) for attack, accs in levels.items() for seed, acc in enumerate(accs)]


def told(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(item.kind.value, item.cell.attack if item.cell else "all", item.message) for item in verdict.findings]


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(kind, cell) for kind, cell, _ in told(verdict)]


# Ten cells of the standard deviation 0.004; which seed is the best differs from cell to cell.
STEADY: dict[str, Sequence[float | None]] = {f"a{i}": [0.5 + i / 100 + (seed + i) % 3 * 0.004 for seed in range(3)] for i in range(10)}


def lower(levels: dict[str, Sequence[float | None]], by: float, only: Sequence[str] = ()) -> dict[str, Sequence[float | None]]:
    return {name: [acc - (by if not only or name in only else 0) for acc in accs if acc is not None] for name, accs in levels.items()}


# Statistics


def test_cells_that_scatter_alike_get_the_pooled_deviation() -> None:
    found = spreads({"x": [(0.50, 0.52), (0.60,)], "y": [(0.70, 0.72)], "z": [(0.1,), (0.3,)]})
    assert set(found) == {"x", "y", "z"}
    assert found["x"] == found["y"] == found["z"]
    assert found["x"].std == pytest.approx(math.sqrt(0.0002))  # each of the two pairs has the variance 2 * 0.01**2
    assert found["x"].dof == 2


def test_a_deviation_is_never_below_the_floor() -> None:
    assert spreads({"x": [(0.5, 0.5, 0.5)], "y": [(0.7, 0.7)]})["x"] == (MIN_STD, 3)


def test_without_two_runs_of_anything_there_is_no_spread() -> None:
    assert spreads({"x": [(0.5,), (0.6,)], "y": [(0.5,), ()]}) == {}
    assert spreads({}) == {}


def test_the_worth_of_the_common_variance_is_found_again() -> None:
    """Cells whose variances are drawn from the distribution that the estimate assumes: s0**2 * d0 / chi2(d0)."""
    rng = np.random.default_rng(0)
    std = 0.01 * np.sqrt(8 / rng.chisquare(8, 3000))
    runs = std[:, None] * rng.standard_normal((3000, 5))
    found = spreads({i: [tuple(row)] for i, row in enumerate(runs.tolist())})
    assert found[0].dof == pytest.approx(4 + 8, rel=0.15)
    own, common = float(runs[0].var(ddof=1)), 0.01**2
    assert found[0].std ** 2 == pytest.approx((8 * common + 4 * own) / 12, rel=0.1)


def test_a_restless_cell_keeps_its_scatter_to_itself() -> None:
    calm: dict[str, list[tuple[float, ...]]] = {f"calm{i}": [(0.5, 0.504, 0.508), (0.5, 0.504, 0.508)] for i in range(20)}
    found = spreads({**calm, "restless": [(0.5, 0.7, 0.9), (0.5, 0.7, 0.9)]})
    assert found["restless"].std > 0.05
    assert found["calm0"].std < 0.01
    still = {f"still{i}": [(0.5, 0.5, 0.5)] for i in range(20)}
    assert spreads({**still, "restless": [(0.5, 0.7, 0.9)]})["still0"].std == MIN_STD


def test_the_shift_of_one_cell_is_students_test() -> None:
    new, old = (0.70, 0.72, 0.73), (0.75, 0.78, 0.74, 0.77)
    found = shift(new, old, spreads({0: [new, old]})[0])
    assert found.difference == pytest.approx(np.mean(new) - np.mean(old))
    assert found.p == pytest.approx(ttest_ind(new, old).pvalue)
    assert found.p_of_drop == pytest.approx(ttest_ind(new, old, alternative="less").pvalue)
    assert shift(old, new, Spread(0.01, 5)).p_of_drop == 1 - shift(old, new, Spread(0.01, 5)).p / 2


def test_the_common_shift_is_students_test_of_the_seeds_averages() -> None:
    """The weights of x and y are 100 and 50, so that a seed's average is (2 dx + dy) / 3."""
    spread = {"x": Spread(0.01, 9), "y": Spread(0.02, 9)}
    old = {"x": {0: 0.50, 1: 0.56}, "y": {0: 0.70, 1: 0.76}}
    new = {"x": {0: 0.47, 1: 0.53}, "y": {0: 0.64, 1: 0.70}}
    found = common_shift(new, old, spread)
    first, second = (2 * -0.06 - 0.09) / 3, (2 * 0.0 - 0.03) / 3  # of the new seeds; those of the old ones are -0.03 and 0.03
    assert found is not None
    assert found.difference == pytest.approx((first + second) / 2)
    assert found.p == pytest.approx(ttest_ind([first, second], [-0.03, 0.03]).pvalue)


def test_averages_that_agree_by_luck_are_not_believed() -> None:
    old = {cell: {0: 0.5 + (cell % 2) * 0.02, 1: 0.52 - (cell % 2) * 0.02} for cell in range(4)}  # both seeds average to the same
    found = common_shift({cell: {0: 0.50, 1: 0.50} for cell in range(4)}, old, dict.fromkeys(range(4), Spread(0.01, 9)))
    assert found is not None
    assert found.difference == pytest.approx(-0.01)
    assert found.p == pytest.approx(shift((-0.01, -0.01), (0.0, 0.0), Spread(0.005, 2)).p)


def test_a_common_shift_takes_two_cells_and_a_third_run() -> None:
    spread = {"x": Spread(0.01, 9), "y": Spread(0.01, 9)}
    one: dict[str, dict[Any, float]] = {"x": {0: 0.5}, "y": {0: 0.6}}
    assert common_shift({"x": {0: 0.4}}, one, spread) is None
    assert common_shift(one, one, spread) is None
    assert common_shift({"x": {0: 0.4, 1: 0.4}, "y": {0: 0.5}}, one, spread) is not None


def test_false_discoveries_by_hand() -> None:
    assert adjusted({"a": 0.01, "b": 0.5, "c": 0.02}) == {"a": pytest.approx(0.03), "b": 0.5, "c": pytest.approx(0.03)}
    assert adjusted({}) == {}


def test_cumulative_sums_by_hand() -> None:
    """z of the nights: 0, then (0.48 - 0.5) / (0.01 * sqrt(1 + 1/2)) = -1.633, then nothing, then +1.155 against the mean 0.49333."""
    up, down = cusum([(0.50,), (0.50,), (0.48,), (), (0.506666667,)], 0.01)
    assert up == pytest.approx([0, 0, 0, 0, 0.013333334 / (0.01 * math.sqrt(1 + 1 / 3)) - 0.5])
    z = -0.02 / (0.01 * math.sqrt(1.5))
    assert down == pytest.approx([0, 0, z + 0.5, z + 0.5, min(0.0, z + 0.5 + 0.013333334 / (0.01 * math.sqrt(4 / 3)) + 0.5)])
    assert cusum([], 0.01) == ([], [])


# The exact lane


def test_the_same_numbers_in_the_same_place_are_fine() -> None:
    verdict = compare(night(STEADY), night(STEADY, date="2026-11-27T03:00:00Z", sources={"attacks/a.py": "2"}))
    assert verdict.findings == ()
    assert verdict.notes == ()
    assert {change.lane for change in verdict.changes} == {"exact"}
    assert verdict.changes[0].before == pytest.approx(0.504)
    assert (verdict.changes[0].n_before, verdict.changes[0].n_after) == (3, 3)
    assert not verdict.matters


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"test_acc": 0.498}, "accuracy 50.00 % to 49.80 % (-0.20 points)"),
        ({"curve": (0.25, 0.4)}, "curve differs from epoch 2 on"),
        ({"curve": (0.25,)}, "curve differs from epoch 2 on"),
        ({"artifacts": {"poison": "others", "purify": "new"}}, "poison images differ, purify images differ"),
        ({"attack_spec": {"name": "a", "version": 2}}, "setting attack_spec.params.eps: 0.5 to unset, setting attack_spec.version: 1 to 2"),
        ({"test_acc": 0.5, "sources": {"attacks/a.py": "2"}}, ""),
        ({"test_acc": 0.6, "sources": {"b.py": "2"}}, "accuracy 50.00 % to 60.00 % (+10.00 points), code changed: attacks/a.py b.py"),
    ],
)  # fmt: skip
def test_any_difference_is_drift(change: dict[str, Any], text: str) -> None:
    verdict = compare([record("a", 0.5)], [replace(record("a", 0.5), **change)])
    assert told(verdict) == ([("drift", "a", f"seed 0: {text}")] if text else [])
    assert verdict.matters is bool(text)
    assert verdict.suspects == frozenset()


def test_the_newest_accepted_run_of_the_same_place_is_the_twin() -> None:
    accepted = [
        record("a", 0.4, date="2026-11-01"),
        record("a", 0.5, date="2026-11-02"),
        record("a", 0.6, date="2026-11-03", environment=THERE),
    ]
    assert compare(accepted, [record("a", 0.5)]).findings == ()
    assert kinds(compare(accepted, [record("a", 0.4)])) == [("drift", "a")]
    assert compare(accepted, [record("a", 0.6, environment=THERE)]).findings == ()


GPU = {**HERE, "device": "A GPU", "device_type": "cuda"}


@pytest.mark.parametrize(("where", "then", "seed"), [(HERE, THERE, 0), (GPU, GPU, 0), (HERE, {}, 0), (HERE, HERE, 7)])
def test_without_a_twin_statistics_decide(where: dict[str, Any], then: dict[str, Any], seed: int) -> None:
    (change,) = compare([record("a", 0.5, environment=where)], [record("a", 0.49, seed, environment=then)]).changes
    assert change.lane == "statistical"


# What is not there


def test_what_is_missing_failed_or_new_is_told() -> None:
    accepted = night({"gone": (0.5,), "lost": (0.5,), "half": (0.5, 0.6), "broken": (0.5,)})
    tonight = [
        record("lost", None, status="missing"),
        record("half", 0.5),
        record("half", None, 1, error="no memory\n  left"),
        record("broken", None),
        record("fresh", 0.5),
        record("odd", math.nan),
    ]
    verdict = compare(accepted, tonight)
    assert told(verdict) == [
        ("missing", "gone", "accepted, but no longer planned"),
        ("missing", "lost", "1 of 1 runs are not there"),
        ("failed", "broken", "1 of 1 runs failed: no reason recorded"),
        ("failed", "half", "1 of 2 runs failed: no memory left"),
        ("failed", "odd", "1 of 1 runs failed: no reason recorded"),
        ("new", "fresh", "no accepted run to compare with"),
    ]
    lanes = {change.cell.attack: change.lane for change in verdict.changes}
    assert lanes == {"broken": "", "fresh": "", "gone": "", "half": "exact", "lost": "", "odd": ""}


def test_new_alone_does_not_matter() -> None:
    assert not compare([record("a", 0.5)], [record("a", 0.5), record("b", 0.5)]).matters


def test_an_accuracy_in_percent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"record a/0: test_acc is 74\.1, expected a share in \[0, 1\]"):
        compare([record("a", 0.74)], [record("a", 74.1)])


# The statistical lane


def test_a_drop_is_suspect_until_other_seeds_confirm_or_refute_it() -> None:
    tonight = night(lower(STEADY, 0.02, only=["a3"]), environment=THERE)
    first = compare(night(STEADY), tonight)
    assert kinds(first) == [("suspect", "a3")]
    assert first.findings[0].message.startswith("-2.00 points (53.40 % to 51.40 %, q = ")
    assert first.matters
    assert [cell.attack for cell in first.suspects] == ["a3"]

    low, high = ([record("a3", acc, seed) for seed, acc in enumerate(accs, start=3)] for accs in ((0.51, 0.52, 0.515), (0.53, 0.535, 0.54)))
    confirmed = compare(night(STEADY), tonight, low)
    assert kinds(confirmed) == [("regression", "a3")]
    assert "; with other seeds -1.90 points (p = " in confirmed.findings[0].message
    assert confirmed.matters
    refuted = compare(night(STEADY), tonight, high)
    assert kinds(refuted) == [("not confirmed", "a3")]
    assert not refuted.matters
    failed = compare(night(STEADY), tonight, [record("a3", None, 3)])
    assert failed == first


def test_a_rise_is_an_improvement_and_needs_no_rerun() -> None:
    verdict = compare(night(STEADY), night(lower(STEADY, -0.02, only=["a3"]), environment=THERE))
    assert kinds(verdict) == [("improvement", "a3")]
    assert not verdict.matters
    assert verdict.suspects == frozenset()


def test_a_small_common_drop_is_found_where_no_cell_is_suspect() -> None:
    tonight = night(lower(STEADY, 0.006), environment=THERE)
    verdict = compare(night(STEADY), tonight)
    assert kinds(verdict) == [("suspect", "all")]
    assert verdict.findings[0].message.startswith("-0.60 points (all 10 cells together, p = ")
    assert len(verdict.suspects) == 10
    again = [replace(run, seed=run.seed + 3) for run in tonight]
    assert kinds(compare(night(STEADY), tonight, again)) == [("regression", "all")]
    assert kinds(compare(night(STEADY), tonight, [replace(run, seed=run.seed + 3) for run in night(STEADY)])) == [("not confirmed", "all")]


def test_healthy_nights_elsewhere_are_fine() -> None:
    tonight = night({name: list(reversed(accs)) for name, accs in STEADY.items()}, environment=THERE, date="2026-11-27")
    verdict = compare(night(STEADY), tonight)
    assert verdict.findings == ()
    assert verdict.notes == ("torch: 2.15.0; accepted: 2.14.1",)


def test_one_seed_against_one_seed_is_not_tested() -> None:
    verdict = compare([record("a", 0.9), record("b", 0.9)], [record("a", 0.1, environment=THERE), record("b", 0.1, environment=THERE)])
    assert verdict.findings == ()
    assert verdict.notes[-1].startswith("2 cells could not be tested: none has two runs")
    assert math.isnan(verdict.changes[0].q)


def test_one_seed_is_judged_by_what_other_nights_were_accepted() -> None:
    accepted = [record(f"a{i}", 0.5 + j * 0.004, date=f"2026-11-0{j}") for i in range(10) for j in (1, 2, 3)]
    tonight = [record(f"a{i}", 0.508 if i else 0.47, environment=THERE) for i in range(10)]
    assert kinds(compare(accepted, tonight)) == [("suspect", "a0")]


def test_a_draw_that_was_made_twice_counts_once() -> None:
    twice = [*night(STEADY), *night(STEADY, environment=THERE, date="2026-11-27")]
    assert compare(twice, night(STEADY)).changes[0].n_before == 3
    elsewhere = night(lower(STEADY, 0.003), environment={**HERE, "device": "another"})
    assert [change.q for change in compare(twice, elsewhere).changes] == [change.q for change in compare(night(STEADY), elsewhere).changes]


def test_order_does_not_matter() -> None:
    tonight = night(lower(STEADY, 0.02, only=["a3"]), environment=THERE)
    assert compare(list(reversed(night(STEADY))), list(reversed(tonight))) == compare(night(STEADY), tonight)


def test_changed_settings_and_code_are_remarked() -> None:
    spec = {"name": "a", "version": 1, "params": {"eps": 0.5}}
    accepted = [record("a", 0.5, environment={**HERE, "git": "abc"}, attack_spec=spec)]
    tonight = [record("a", 0.5, environment={**THERE, "git": "def"}, attack_spec={**spec, "version": 2}, date="2026-11-27")]
    assert compare(accepted, tonight).notes[:3] == (
        "code: def; accepted: abc",
        "torch: 2.15.0; accepted: 2.14.1",
        "setting attack_spec.version: 1 to 2 (1 cells), which may move numbers",
    )


def test_comparing_the_accepted_records_with_themselves_is_remarked() -> None:
    (note,) = compare(night(STEADY), night(STEADY)).notes
    assert note.startswith("30 of 30 runs are the accepted ones themselves")


# Wall times


def timed(seconds: dict[str, float], **values: Any) -> list[Record]:
    return [record(attack, 0.5, seconds={"poison": 1.0, "train": value - 1}, **values) for attack, value in seconds.items()]


def test_a_cell_that_takes_longer_is_told_and_does_not_matter() -> None:
    usual = {f"a{i}": 20.0 for i in range(9)}
    verdict = compare(timed(usual), timed({**usual, "a2": 40.0, "a3": 10.0, "a4": 26.0}))
    assert told(verdict) == [("slower", "a2", "2.00 times the accepted seconds"), ("faster", "a3", "0.50 times the accepted seconds")]
    assert not verdict.matters
    assert verdict.changes[2].slowdown == 2


def test_a_slow_machine_is_told_once() -> None:
    usual = {f"a{i}": 20.0 for i in range(5)}
    verdict = compare(timed(usual), timed({name: 2 * value for name, value in usual.items()}))
    assert told(verdict) == [("slower", "all", "2.00 times the accepted seconds, the median over 5 cells; the machine or the code")]


def test_short_runs_and_other_devices_tell_nothing_of_time() -> None:
    assert compare(timed({"a": 1.0}), timed({"a": 4.9})).findings == ()
    assert compare(timed({"a": 20.0}), timed({"a": 60.0}, environment={**HERE, "device": "another"})).findings == ()
    assert math.isnan(compare([record("a", 0.5, seconds={})], [record("a", 0.5, seconds={})]).changes[0].slowdown)


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
    assert read_baseline(file) == [record("a", 0.75), record("a", 0.25, 1, needs=("clean:5",)), record("b", 0.5)]
    assert compare(read_baseline(file), records).findings != ()
    assert read_baseline(tmp_path / "absent.jsonl") == []


def test_accepting_the_same_again_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "toy.jsonl"
    assert write_baseline(file, [record("a", 0.5), record("a", 0.5, date="2026-12-01", environment={**HERE, "git": "def"})]) == 1
    assert read_baseline(file)[0].date == "2026-12-01"
    assert write_baseline(file, [*read_baseline(file), record("a", 0.5, environment=THERE), record("a", 0.6)]) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ("[]", "a list, expected an object"), ('{"schema": 99}', "update uebench"), ('{"schema": 1}', "incomplete record")],
)
def test_a_damaged_baseline_is_named_by_line(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "toy.jsonl"
    write_baseline(file, [record("a", 0.5)])
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"toy.jsonl, line 2: .*{message}"):
        read_baseline(file)


def test_nights_are_appended_and_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "toy" / "history.jsonl"
    nights = [night_of([*night(STEADY, date=f"2026-11-{day}T03:00:00Z"), record("a0", None, 9)]) for day in (26, 27)]
    for one in nights:
        append_night(file, one)
    assert read_history(file) == nights
    assert nights[0].date == "2026-11-26T03:00:00Z"
    assert nights[0].accuracies[cell_of(record("a0", 0.5))] == (0.5, 0.504, 0.508)
    assert night_of([record("a", None)]) == Night("", {})
    file.write_text('{"night": "x", "cells": [["toy", 0.5]]}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"history.jsonl, line 1: not a night"):
        read_history(file)


# Reports


def verdict_of_every_kind() -> Verdict:
    """All but ``suspect`` and ``faster``."""
    accepted = night({**STEADY, "drifts": (0.5,), "gone": (0.5,), "slow": (0.5,)})
    levels = {**lower(STEADY, 0.02, only=["a1", "a2"]), "a3": [0.56, 0.564, 0.568]}
    here: list[tuple[str, float | None, dict[str, Any]]] = [
        ("drifts", 0.4, {}),
        ("fails", None, {"error": "loss | is `nan`"}),
        ("fresh", 0.5, {}),
        ("slow", 0.5, {"seconds": {"train": 40.0}}),
    ]
    tonight = [
        *night(levels, environment=THERE, date="2026-11-27"),
        *(record(name, acc, date="2026-11-27", **more) for name, acc, more in here),
    ]
    return compare(accepted, tonight, [record(name, acc, seed) for name, acc in (("a1", 0.49), ("a2", 0.53)) for seed in (3, 4)])


def test_markdown_equals_the_golden_file() -> None:
    """``UEBENCH_REGENERATE=1 pytest tests/test_regression.py`` writes it anew; look at the difference before committing it."""
    verdict = verdict_of_every_kind()
    assert {item.kind for item in verdict.findings} == {*Kind} - {Kind.suspect, Kind.faster}
    text = markdown(verdict, "toy", {"command": "run_benchmark.py regress toy"})
    if "UEBENCH_REGENERATE" in os.environ:
        (GOLDEN / "regress.md").write_text(text, encoding="utf-8")
    assert text == (GOLDEN / "regress.md").read_text(encoding="utf-8")


def test_junit_has_one_case_a_cell_and_counts_that_hold() -> None:
    verdict = verdict_of_every_kind()
    root = ElementTree.fromstring(junit(verdict, "toy", "2026-11-26T03:00:00Z"))
    (suite,) = root
    cases = suite.findall("testcase")
    assert (root.tag, suite.tag, suite.get("name"), suite.get("timestamp")) == ("testsuites", "testsuite", "toy", "2026-11-26T03:00:00")
    assert suite.get("tests") == str(len(cases)) == str(len(verdict.changes) + 1)
    assert suite.get("failures") == str(len(suite.findall("testcase/failure"))) == "3"
    assert (suite.get("errors"), suite.get("skipped")) == ("1", "0")
    assert float(suite.get("time", "")) == pytest.approx(sum(float(case.get("time", "")) for case in cases))
    by_name = {case.get("name"): case for case in cases}
    failure = by_name["a1 + none"].find("failure")
    assert failure is not None
    assert (failure.get("type"), by_name["a1 + none"].get("classname")) == ("regression", "toy / net / quick")
    assert (failure.text or "").startswith("regression: -2.00 points")
    assert by_name["fails + none"].find("error") is not None
    assert list(by_name["a9 + none"]) == []
    assert "slower: " in (by_name["slow + none"].findtext("system-out") or "")


def test_hostile_names_stay_texts() -> None:
    nasty = '<b>"x" & $y$ | `z`\x1b[31m\x00</b>\nnew'
    verdict = compare([record(nasty, 0.5)], [record(nasty, 0.4), record("b", None, error=nasty)])
    case = ElementTree.fromstring(junit(verdict, nasty, "")).findall("testsuite/testcase")
    assert case[1].get("name", "").startswith('<b>"x" & $y$ | `z`�[31m�</b>')
    lines = markdown(verdict, nasty, {}).splitlines()
    assert not [line for line in lines if "<b>" in line]
    assert [line.count(" | ") for line in lines if line.startswith("| drift")] == [2]


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (lambda: compare(night(STEADY), night(STEADY)), "nothing that matters; 10 cells, 10 of them exact"),
        (lambda: compare([record("a", 0.5)], [record("a", 0.4)]), "1 finding that matters: 1 drift; 1 cells, 1 of them exact"),
        (lambda: compare(night({"a": (0.5,), "b": (0.5,)}), []), "2 findings that matter: 2 missing; 2 cells, 0 of them exact"),
    ],
)
def test_the_night_in_a_sentence(verdict: Callable[[], Verdict], text: str) -> None:
    assert headline(verdict()) == text


def test_the_history_has_two_panels_a_cell_and_marks_what_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def keep(figure: Figure) -> dict[str, bytes]:
        drawn.append(figure)
        return {"png": b"-"}

    monkeypatch.setattr(history_figure, "files", keep)
    cells = [cell_of(record(name, 0.5)) for name in ("falls", "stays", "$x_1$")]
    runs = [0.5, 0.504, 0.508]
    accepted = dict.fromkeys(cells, runs)
    nights = [
        Night(f"2026-11-{10 + day}", {cell: tuple(acc - day / 100 * (cell is cells[0]) for acc in runs) for cell in cells})
        for day in range(12)
    ]
    assert history_figure.history(accepted, "2026-11-12", nights, "toy") == {"png": b"-"}
    axes = drawn[0].axes
    assert len(axes) == 6
    titles = {item.get_title(loc="left"): item._left_title.get_color() for item in axes[::2]}  # type: ignore[attr-defined]
    assert titles == {"$x_1$ + none": "#1b1f24", "falls + none": "#a1232b", "stays + none": "#1b1f24"}
    assert np.asarray(axes[1].lines[0].get_xdata()).tolist() == list(range(3, 12))  # the nights after the acceptance
    assert history_figure.history(accepted, "", [], "toy") == {}
    assert history_figure.history({}, "", nights, "toy") == {}


def test_the_history_is_a_png_and_a_pdf_and_always_the_same() -> None:
    cell = cell_of(record("a", 0.5))
    one, two = (
        history_figure.history({cell: [0.5]}, "", [Night("2026-11-26", {cell: (0.5,)}), Night("2026-11-27", {})], "toy") for _ in range(2)
    )
    assert one == two
    assert one["png"].startswith(b"\x89PNG")
    assert one["pdf"].startswith(b"%PDF")


# Measured on drawn nights; docs/regress.md has the rates over more of them


@pytest.fixture(scope="module")
def drawn_nights() -> Any:
    sys.path.insert(0, str(ROOT / "perf"))
    try:
        return importlib.import_module("regress_power")
    finally:
        sys.path.remove(str(ROOT / "perf"))


def test_planted_drops_are_found_on_the_first_night_and_healthy_nights_are_quiet(drawn_nights: Any) -> None:
    worlds = drawn_nights.worlds(100)
    healthy = drawn_nights.measure(worlds["healthy"], nights=20, seeds=3, accepted=1)
    assert healthy.alarm <= 1 / 20
    for name in ("one cell 2 points lower", "all cells 1 point lower"):
        assert drawn_nights.measure(worlds[name], nights=3, seeds=3, accepted=1).found == 1, name


# The commands


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stages that publish at once what the test says: ``acc`` of (attack, defense, seed), and an ``environment``."""
    world: dict[str, Any] = {
        "acc": lambda attack, defense, seed: 0.5 + 0.004 * seed,
        "environment": HERE,
        "date": "2026-11-26T03:00:00Z",
        "ran": [],
    }

    def run_plan(stages: Sequence[Stage], store: Store, *_: Any, policy: str = "missing", **__: Any) -> Outcome:
        for stage in stages:
            if stage.kind == "train" and (policy == "force" or not store.has_record(stage.key)):
                cell = {name: value for name, value in stage.payload["cell"].items() if name != "needs"}
                acc = world["acc"](cell["attack"], cell["defense"], cell["seed"])
                world["ran"].append((cell["attack"], cell["defense"], cell["seed"]))
                if acc is None:
                    store.publish_failure(stage.key, stage.label, "it broke", "", None)
                    continue
                store.publish_record(Record(**cell, test_acc=acc, curve=(acc,), environment=world["environment"], date=world["date"]))
        return Outcome()

    world["run"] = run_plan
    monkeypatch.setattr("benchmark.scheduler.run_plan", run_plan)
    monkeypatch.setattr(cli, "_report", lambda *_: True)
    monkeypatch.setattr(history_figure, "history", lambda *_: {"png": b"-"})
    return world


def test_a_suite_that_runs_again_is_exact(call: Call, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with real stages: run, accept, compute all of it again, compare."""
    monkeypatch.setattr(history_figure, "files", lambda figure: {"png": b"-", "pdf": b"-"})
    monkeypatch.setattr(cli, "_report", lambda *_: True)
    args = (tiny, "--device", "cpu", "--attacks", "lsp", "--defenses", "none")
    assert run_tiny(call, *args).code == 0
    accepted = call("baseline", "accept", *args)
    assert (accepted.code, accepted.out) == (0, "results/baselines/tiny.jsonl holds 1 accepted runs\n")
    file = tmp_path / "results" / "baselines" / "tiny.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"date": "2', '"date": "1'), encoding="utf-8")  # a thousand years ago
    assert run_tiny(call, *args, "--policy", "force").code == 0
    again = call("regress", *args)
    assert again.code == 0, again.out + again.err
    assert again.out.startswith("tiny: nothing that matters; 1 cells, 1 of them exact")
    names = {file.name for file in (tmp_path / "results" / "tiny").iterdir()}
    assert {"regress.md", "regress.xml", "history.jsonl", "history.png", "history.pdf"} <= names


def test_drift_failure_and_absence_make_the_exit_status(call: Call, tiny: str, tmp_path: Path, fake_runs: dict[str, Any]) -> None:
    run_tiny(call, tiny)
    assert call("baseline", "accept", tiny).code == 0
    fake_runs["acc"] = lambda attack, defense, seed: None if attack == "none" else 0.25 if defense == "grayscale" else 0.5
    run_tiny(call, tiny, "--policy", "force")
    result = call("regress", tiny)
    assert result.code == 1
    assert "lsp + grayscale: seed 0: accuracy 50.00 % to 25.00 % (-25.00 points), curve differs from epoch 1 on" in result.out
    assert result.out.count("1 of 1 runs failed: it broke") == 2
    assert "3 findings that matter: 1 drift, 2 failed; 4 cells, 2 of them exact" in result.out
    cases = ElementTree.parse(tmp_path / "results" / "tiny" / "regress.xml").getroot()[0]
    assert (cases.get("failures"), cases.get("errors")) == ("1", "2")
    assert "# tiny: not fine" in (tmp_path / "results" / "tiny" / "regress.md").read_text(encoding="utf-8")

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
    fake_runs["acc"] = lambda attack, defense, seed: 0.5 + 0.004 * (seed % 3) - (0.05 if (attack, defense) == ("lsp", "grayscale") else 0)
    call("run", *args, "--policy", "force")
    fake_runs["ran"].clear()

    unconfirmed = call("regress", *args, "--no-confirm")
    assert (unconfirmed.code, fake_runs["ran"]) == (1, [])
    assert "suspect toy" not in unconfirmed.out
    assert "lsp + grayscale: -5.00 points (50.40 % to 45.40 %" in unconfirmed.out

    result = call("regress", *args)
    assert result.code == 1
    assert "1 suspect cells: running them again with seeds [3, 4, 5]" in result.out
    assert fake_runs["ran"] == [("lsp", "grayscale", seed) for seed in (3, 4, 5)]
    assert "regression folder[" in result.out
    assert "with other seeds -5.00 points" in result.out

    monkeypatch.setattr("benchmark.scheduler.run_plan", lambda *_, **__: Outcome(interrupted=True))
    assert call("regress", *args).code == 130
    monkeypatch.setattr("benchmark.scheduler.run_plan", fake_runs["run"])

    fake_runs["acc"] = lambda attack, defense, seed: 0.5 + 0.004 * (seed % 3)
    later = call("regress", *args)
    assert fake_runs["ran"][3:] == [("lsp", "grayscale", seed) for seed in (6, 7, 8)]
    assert later.code == 0
    assert "not confirmed folder[" in later.out
    history = read_history(Path("results/tiny/history.jsonl"))
    assert [night.date for night in history] == ["2026-11-27T03:00:00Z"]
    assert len(history[0].accuracies[next(iter(history[0].accuracies))]) == 3


def test_accepting_more_nights_and_more_machines(call: Call, tiny: str, fake_runs: dict[str, Any]) -> None:
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


def test_what_cannot_be_compared_is_a_usage_error(call: Call, tiny: str, fake_runs: dict[str, Any]) -> None:
    def message(result: Result) -> str:
        assert result.code == 2
        return result.err

    assert "there is nothing to accept: none of the 4 runs of tiny has finished; run the suite first" in message(
        call("baseline", "accept", tiny)
    )
    assert "there is no baseline results/baselines/tiny.jsonl" in message(call("regress", tiny))
    call("run", tiny)
    call("baseline", "accept", tiny, "--baselines", "elsewhere")
    assert call("regress", tiny, "--baselines", "elsewhere").code == 0
    Path("elsewhere/tiny.jsonl").write_text("nonsense\n", encoding="utf-8")
    assert "tiny.jsonl, line 1: not JSON" in message(call("regress", tiny, "--baselines", "elsewhere"))


# What runs at night


def test_the_nightly_suite_is_quick_with_seeds(registry: Registry) -> None:
    nightly, quick = (load_suite(name, registry) for name in ("nightly", "quick"))
    assert (nightly.seeds, nightly.precision) == ((0, 1, 2), "fp32")
    assert set(nightly.attacks) <= set(quick.attacks)
    assert set(nightly.defenses) <= set(quick.defenses)
    assert (nightly.datasets, nightly.victims, nightly.protocols) == (quick.datasets, quick.victims, quick.protocols)
    assert all(nightly.parameters[name] == quick.parameters[name] for name in nightly.parameters)


def test_the_workflow_is_valid_and_asks_for_little() -> None:
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "://" not in text
    steps = flow["jobs"]["nightly"]["steps"]
    assert all(step["uses"].startswith("actions/") and "@v" in step["uses"] for step in steps if "uses" in step)
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines() if "run_benchmark.py" in line]
    assert [line.split()[2] for line in lines] == ["run", "baseline", "regress"]
    group: Any = typer.main.get_command(cli.app)
    for line in lines:
        _, _, *words = shlex.split(line)
        command = group.commands[words[0]]
        if words[0] == "baseline":
            command, words = command.commands[words[1]], words[1:]
        command.make_context(words[0], words[1:])
