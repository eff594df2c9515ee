"""Results that mean nothing: which are found, at which limits, and what they take back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmark.analysis.doubts import Chance, Doubt, chance, doubts, flaws, in_doubt
from benchmark.analysis.leaderboard import Summary, leaderboard
from benchmark.analysis.table import comparable, to_table
from benchmark.catalogue.registry import ROOT
from benchmark.running.last_run import last_selection, records_of
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.made_up_records import record
from support.reports import TEN


def found(*made: Record) -> tuple[Doubt, ...]:
    return doubts(comparable(to_table(made)))


def kinds(*made: Record) -> list[str]:
    return [doubt.kind for doubt in found(*made)]


def ten(attack: str, defense: str, acc: float | None, **values: Any) -> Record:
    facts = {"data": TEN, **values.pop("facts", {})}
    return record(attack, defense, acc, facts=facts, **{"train_acc": 0.9, **values})


def purified(*, seed: int = 0, **facts: Any) -> Record:
    return record("em", "mine", 0.5, seed=seed, facts={"purify": facts})


def test_chance_is_one_in_k_and_its_limit_follows_from_the_images() -> None:
    # 5 points; three standard errors of a guesser, sqrt(0.1 * 0.9 / 1000), are 2.8
    assert Chance(0.1, 1000, 50).test_limit == pytest.approx(0.15)
    # of 50 images three standard errors are 3 * sqrt(0.09 / 50)
    assert Chance(0.1, 1000, 50).train_limit == pytest.approx(0.1 + 0.1272792)


def test_clean_data_at_chance_take_back_every_number_and_every_rank() -> None:
    made = [
        ten(attack, defense, acc)
        for attack in ("none", "em")
        for defense, acc in (("none", 0.15), ("mine", 0.2), ("other", 0.11))
    ]
    (doubt,) = found(*made)  # and not that the attack does not bite: none could
    assert doubt.kind == "clean at chance"
    assert doubt.cells == {(one.attack, one.defense) for one in made}
    assert doubt.why.startswith("Undefended accuracy on clean data is 15.0 %, near chance (10.0 %)")
    assert leaderboard(to_table(made))["rank"].isna().all()
    above = [replace(one, test_acc=0.151) if one.defense == "none" else one for one in made]
    assert "clean at chance" not in kinds(*above)
    assert set(leaderboard(to_table(above))["rank"].dropna()) == {1, 2}


def test_of_records_that_name_no_classes_nothing_is_said_about_chance() -> None:
    old = [record("none", "none", 0.1, train_acc=0.1), record("none", "mine", 0.1, train_acc=0.1)]
    assert found(*old) == ()
    one, other = ({**TEN, "classes": classes} for classes in (10, 100))
    mixed = [record("none", name, 0.1, facts={"data": data}) for name, data in
             (("none", one), ("mine", other))]  # fmt: skip
    assert chance(comparable(to_table(mixed))) is None
    # a newer record of the same group tells the older ones
    assert kinds(old[0], ten("none", "mine", 0.1)) == ["clean at chance", "victim at chance"]


def test_an_attack_within_ten_points_of_clean_accuracy_does_not_bite() -> None:
    made = [
        *(record("none", "none", acc, seed=seed) for seed, acc in enumerate((0.8, 0.9))),
        record("weak", "none", 0.75),
        record("weak", "mine", 0.9),
        record("strong", "none", 0.7499),
        record("strong", "mine", 0.9),
    ]
    (doubt,) = found(*made)
    assert (doubt.kind, doubt.cells) == ("no bite", {("weak", "none"), ("weak", "mine")})
    assert "85.0 %" in doubt.why
    assert doubt.why.endswith("weak (75.0 %).")
    assert "strong" not in doubt.text


def test_a_victim_that_does_not_learn_its_training_images_is_told_by_its_worst_seed() -> None:
    made = [
        ten("none", "none", 0.8),
        ten("em", "mine", 0.5, train_acc=0.16),
        ten("em", "other", 0.5, train_acc=0.9),
        ten("em", "other", 0.5, seed=1, train_acc=0.15),
    ]
    (doubt,) = found(*made)
    assert (doubt.kind, doubt.cells) == ("victim at chance", {("em", "other")})
    assert doubt.why.endswith("near chance (10.0 %): em + other (15.0 %).")


@pytest.mark.parametrize(
    ("facts", "kind", "measured"),
    [
        ({"s_rate": 1.11, "s_rate_target": 1.0}, "rate missed", "s rate 1.11, target 1"),
        ({"rate": 9.0, "rate_target": 3.0}, "rate missed", "rate 9, target 3"),
        ({"psnr_mean": 17.94}, "far from input", "17.9 dB"),
        ({"loss_fall": 0.5}, "unfinished", "50 %"),
        ({"stage2_loss_fall": 0.3}, "unfinished", "stage2 30 %"),
    ],
)  # fmt: skip
def test_a_purifier_is_judged_by_its_facts(facts: dict[str, Any], kind: str, measured: str) -> None:
    ((flaw),) = flaws(facts)
    assert (flaw.kind, flaw.measured) == (kind, measured)
    (doubt,) = found(purified(**facts))
    assert doubt.cells == {("em", "mine")}
    assert f"em ({measured})" in doubt.why
    assert doubt.why.startswith(("mine ",))


def test_a_fitted_purifier_is_in_no_doubt() -> None:
    sound = {
        **{"rate": 1.09, "rate_target": 1.0, "stage2_rate": 0.2, "stage2_rate_target": 5.0},
        **{"psnr_mean": 18.0, "loss_fall": 0.04, "stage2_loss_fall": -3.0, "rounds": 7},
        **{"mode": "x", "mode_target": "y", "lr_target": 0.1, "kept": 1.0},
    }
    assert found(purified(**sound)) == ()
    assert list(flaws({"psnr_mean": None})) == []  # changes nothing


def test_a_purifier_counts_by_its_worst_seed() -> None:
    (doubt,) = found(purified(psnr_mean=30.0), purified(seed=1, psnr_mean=12.0))
    assert "em (12.0 dB)" in doubt.why


def test_many_cells_are_counted_and_a_cell_may_have_several_doubts() -> None:
    made = [record("none", "none", 0.8)] + [record(attack, "none", 0.8) for attack in "abcdef"]
    made += [record("a", "mine", 0.8, facts={"purify": {"psnr_mean": 9.0, "loss_fall": 0.9}})]
    by_cell = in_doubt(found(*made))
    assert len(by_cell["a", "mine"]) == 3
    assert by_cell["f", "none"][0].endswith("d (80.0 %), and 2 more.")
    assert ("none", "none") not in by_cell


def test_failed_and_absent_results_are_in_no_doubt() -> None:
    assert found(record("em", "mine", None)) == ()
    assert Summary(to_table([record("em", "mine", None)])).doubts == {
        ("made-up", "net", "quick", 1.0, ""): ()
    }


@pytest.mark.parametrize("suite", ["cifar10-lite", "cifar10-attacks", "dvae-sweep"])
def test_of_the_shipped_records_only_two_bits_a_channel_are_in_doubt(suite: str) -> None:
    """Bit-depth reduction to two bits leaves 16.8 dB; ``hypo``, the weakest attack, bites."""
    baselines = ROOT / "results" / "baselines"
    selection = last_selection(baselines / suite)
    assert selection is not None
    table = to_table(records_of(Store(baselines / "store"), selection))
    told = [doubt for group in Summary(table).doubts.values() for doubt in group]
    if suite != "cifar10-lite":
        assert told == []
        return
    (doubt,) = told
    assert {defense for _, defense in doubt.cells} == {"bdr"}
    assert doubt.why == (
        "bdr keeps little of its images, whose PSNR to the input is below 18 dB: em (16.8 dB), "
        "em[granularity=class,class_share=1.0] (16.8 dB), lsp (16.9 dB), clean data (16.8 dB), "
        "and 1 more."
    )
