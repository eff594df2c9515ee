"""Regression nights: every kind of finding, and the rates on drawn nights."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from typing import Any

import pytest

from benchmark.analysis.regression import compare
from benchmark.catalogue.registry import ROOT
from benchmark.storage.record import Record
from support.made_up_nights import HERE, STEADY, THERE, kinds, lower, night, record, told

# The exact lane


def test_the_same_numbers_in_the_same_place_are_fine() -> None:
    verdict = compare(
        night(STEADY), night(STEADY, date="2026-11-27T03:00:00Z", sources={"attacks/a.py": "2"})
    )
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
        (
            {"artifacts": {"poison": "others", "purify": "new"}},
            "poison images differ, purify images differ",
        ),
        (
            {"attack_spec": {"name": "a", "version": 2}},
            "setting attack_spec.params.eps: 0.5 to unset, setting attack_spec.version: 1 to 2",
        ),
        ({"test_acc": 0.5, "sources": {"attacks/a.py": "2"}}, ""),
        (
            {"test_acc": 0.6, "sources": {"b.py": "2"}},
            "accuracy 50.00 % to 60.00 % (+10.00 points), code changed: attacks/a.py b.py",
        ),
    ],
)
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


@pytest.mark.parametrize(
    ("where", "then", "seed"), [(HERE, THERE, 0), (GPU, GPU, 0), (HERE, {}, 0), (HERE, HERE, 7)]
)
def test_without_a_twin_statistics_decide(
    where: dict[str, Any], then: dict[str, Any], seed: int
) -> None:
    accepted = [record("a", 0.5, environment=where), record("b", 0.5, 1), record("b", 0.51, 2)]
    tonight = [record("a", 0.49, seed, environment=then), record("b", 0.5, 3)]
    assert [change.lane for change in compare(accepted, tonight).changes] == [
        "statistical",
        "statistical",
    ]


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
    with pytest.raises(
        ValueError, match=r"record a/0: test_acc is 74\.1, expected a share in \[0, 1\]"
    ):
        compare([record("a", 0.74)], [record("a", 74.1)])


# The statistical lane


def test_a_drop_is_suspect_until_other_seeds_confirm_or_refute_it() -> None:
    tonight = night(lower(STEADY, 0.02, only=["a3"]), environment=THERE)
    first = compare(night(STEADY), tonight)
    assert kinds(first) == [("suspect", "a3")]
    assert first.findings[0].message.startswith("-2.00 points (53.40 % to 51.40 %, q = ")
    assert first.matters
    assert [cell.attack for cell in first.suspects] == ["a3"]

    low, high = (
        [record("a3", acc, seed) for seed, acc in enumerate(accs, start=3)]
        for accs in ((0.51, 0.52, 0.515), (0.53, 0.535, 0.54))
    )
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
    assert kinds(
        compare(night(STEADY), tonight, [replace(run, seed=run.seed + 3) for run in night(STEADY)])
    ) == [("not confirmed", "all")]


def test_healthy_nights_elsewhere_are_fine() -> None:
    tonight = night(
        {name: list(reversed(accs)) for name, accs in STEADY.items()},
        environment=THERE,
        date="2026-11-27",
    )
    verdict = compare(night(STEADY), tonight)
    assert verdict.findings == ()
    assert verdict.notes == ("torch: 2.15.0; accepted: 2.14.1",)


def test_one_seed_against_one_seed_is_not_tested() -> None:
    verdict = compare(
        [record("a", 0.9), record("b", 0.9)],
        [record("a", 0.1, environment=THERE), record("b", 0.1, environment=THERE)],
    )
    assert told(verdict) == [
        (
            "untested",
            "all",
            "2 of 2 cells: none has two runs, so that nothing is known of chance. "
            "Run more seeds, or accept more nights",
        )
    ]
    assert verdict.matters
    assert [change.lane for change in verdict.changes] == ["untested", "untested"]
    assert math.isnan(verdict.changes[0].q)


def test_one_seed_is_judged_by_what_other_nights_were_accepted() -> None:
    accepted = [
        record(f"a{i}", 0.5 + j * 0.004, date=f"2026-11-0{j}") for i in range(10) for j in (1, 2, 3)
    ]
    tonight = [record(f"a{i}", 0.508 if i else 0.47, environment=THERE) for i in range(10)]
    assert kinds(compare(accepted, tonight)) == [("suspect", "a0")]


def test_a_draw_that_was_made_twice_counts_once() -> None:
    twice = [*night(STEADY), *night(STEADY, environment=THERE, date="2026-11-27")]
    assert compare(twice, night(STEADY)).changes[0].n_before == 3
    elsewhere = night(lower(STEADY, 0.003), environment={**HERE, "device": "another"})
    assert [change.q for change in compare(twice, elsewhere).changes] == [
        change.q for change in compare(night(STEADY), elsewhere).changes
    ]


def test_order_does_not_matter() -> None:
    tonight = night(lower(STEADY, 0.02, only=["a3"]), environment=THERE)
    assert compare(list(reversed(night(STEADY))), list(reversed(tonight))) == compare(
        night(STEADY), tonight
    )


def test_changed_settings_and_code_are_remarked() -> None:
    spec = {"name": "a", "version": 1, "params": {"eps": 0.5}}
    accepted = [record("a", 0.5, environment={**HERE, "git": "abc"}, attack_spec=spec)]
    tonight = [
        record(
            "a",
            0.5,
            environment={**THERE, "git": "def"},
            attack_spec={**spec, "version": 2},
            date="2026-11-27",
        )
    ]
    assert compare(accepted, tonight).notes[:3] == (
        "code: def; accepted: abc",
        "torch: 2.15.0; accepted: 2.14.1",
        "setting attack_spec.version: 1 to 2 (1 cells), which may move numbers",
    )


def test_seeds_with_poisons_of_their_own_on_one_side_alone_are_remarked() -> None:
    own, said = (
        [replace(run, craft_seed=run.seed) for run in night(STEADY, environment=THERE)],
        "seeds have poisons of their own",
    )
    assert any(said in note for note in compare(night(STEADY), own).notes)
    assert not any(said in note for note in compare(own, own).notes)


def test_runs_that_were_there_before_are_no_night() -> None:
    """Runs of an earlier night would pass for those of a night that computed too little."""
    accepted, tonight = night(STEADY, date="2026-11-26T03"), night(STEADY, date="2026-11-27T03")
    assert not compare(accepted, tonight, last_night="").findings
    assert not compare(accepted, tonight, last_night="2026-11-26T03").findings
    assert compare(accepted, tonight).findings == (), "nobody asked"
    for runs, last, number in (
        (accepted, "", 30),
        (tonight, "2026-11-27T03", 30),
        ([*tonight[1:], accepted[0]], "2026-11-26T03", 1),
    ):
        verdict = compare(accepted, runs, last_night=last)
        assert verdict.matters
        ((kind, where, message),) = told(verdict)
        assert (kind, where) == ("stale", "all")
        assert message.startswith(
            f"{number} of 30 runs are those of the last night or the accepted ones: "
            "nothing was computed since"
        )


def test_accepted_seeds_that_are_not_planned_are_remarked() -> None:
    assert compare(night(STEADY), [run for run in night(STEADY) if run.seed == 0]).notes == (
        "seeds 1, 2 of 10 cells were accepted and are not planned",
    )


# Wall times


def timed(seconds: dict[str, float], **values: Any) -> list[Record]:
    return [
        record(attack, 0.5, seconds={"poison": 1.0, "train": value - 1}, **values)
        for attack, value in seconds.items()
    ]


def test_a_cell_that_takes_longer_is_told_and_does_not_matter() -> None:
    usual = {f"a{i}": 20.0 for i in range(9)}
    verdict = compare(timed(usual), timed({**usual, "a2": 40.0, "a3": 10.0, "a4": 26.0}))
    assert told(verdict) == [
        ("slower", "a2", "2.00 times the accepted seconds"),
        ("faster", "a3", "0.50 times the accepted seconds"),
    ]
    assert not verdict.matters
    assert verdict.changes[2].slowdown == 2


def test_a_slow_machine_is_told_once() -> None:
    usual = {f"a{i}": 20.0 for i in range(5)}
    verdict = compare(timed(usual), timed({name: 2 * value for name, value in usual.items()}))
    assert told(verdict) == [
        (
            "slower",
            "all",
            "2.00 times the accepted seconds, the median over 5 cells; the machine or the code",
        )
    ]


def test_short_runs_and_other_devices_tell_nothing_of_time() -> None:
    assert compare(timed({"a": 1.0}), timed({"a": 4.9})).findings == ()
    elsewhere = compare(
        timed({"a": 20.0}), timed({"a": 60.0}, environment={**HERE, "device": "another"})
    )
    assert [finding.kind for finding in elsewhere.findings] == ["untested"]
    assert math.isnan(
        compare([record("a", 0.5, seconds={})], [record("a", 0.5, seconds={})]).changes[0].slowdown
    )


# Measured on drawn nights; docs/regress.md has the rates over more of them


@pytest.fixture(scope="module")
def drawn_nights() -> Any:
    sys.path.insert(0, str(ROOT / "perf"))
    try:
        return importlib.import_module("regress_power")
    finally:
        sys.path.remove(str(ROOT / "perf"))


def test_planted_drops_are_found_on_the_first_night_and_healthy_nights_are_quiet(
    drawn_nights: Any,
) -> None:
    worlds = drawn_nights.worlds(100)
    healthy = drawn_nights.measure(worlds["healthy"], nights=20, seeds=3, accepted=1)
    assert healthy.alarm <= 1 / 20
    for name in ("one cell 2 points lower", "all cells 1 point lower"):
        assert drawn_nights.measure(worlds[name], nights=3, seeds=3, accepted=1).found == 1, name
