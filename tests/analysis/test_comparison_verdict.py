"""What is said of a defense against a reference: the verdict, its findings and notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmark.report.comparison import (
    comparison_html,
    comparison_latex,
    comparison_markdown,
    statements,
    verdict,
)
from benchmark.storage.record import Record
from support.made_up_records import (
    BY_HAND,
    SIX,
    SIX_HIGH,
    compared,
    printed,
    record,
    records,
    with_differences,
)

# The numbers


@pytest.mark.parametrize(
    ("points", "finding", "said"),
    [
        (
            {"em": SIX, "lsp": SIX},
            "better",
            "mine is better than other by 2.1 points in the mean over 2 attacks "
            "(6 seeds, 12 pairs, sign-",
        ),
        (
            {"em": [-d for d in SIX]},
            "worse",
            "mine is worse than other by 2.1 points on em "
            "(6 seeds, 6 pairs, sign-flip test p = 0.031, by ",
        ),
        ({"em": [d / 5 for d in SIX]}, "small", "mine and other differ by +0.4 points on em"),
        (
            {"em": [3 * d for d in SIX], "lsp": [-d for d in SIX]},
            "depends",
            "mine is better on em and worse on lsp.",
        ),
        (
            {"em": (3.0, -2.0, 1.0, -1.5, 2.0, -1.0)},
            "not shown",
            "That is no evidence that they are equal. One craft seed",
        ),
        (
            {"em": SIX[:3], "lsp": (4.0, -2.0, 1.0)},
            "not shown",
            "no evidence that they are equal: mine is ahead on em. One",
        ),
        (
            {"em": SIX[:3]},
            "too little",
            "too little evidence to tell mine from other: +2.0 points on em (3 seeds, 3 pairs). "
            "At least 6 pairs",
        ),
    ],
)
def test_findings(points: dict[str, Sequence[float]], finding: str, said: str) -> None:
    c = with_differences(**points)
    assert c.conclusion == finding
    assert said in verdict(c)
    assert verdict(c).startswith("On made-up (net, quick), ")


def test_a_better_one_that_loses_somewhere_is_said_to() -> None:
    c = with_differences(
        a=[9 * d for d in SIX], b=[9 * d for d in SIX], c=[8 * d for d in SIX], d=[-d for d in SIX]
    )
    assert c.conclusion == "better"
    assert "with 3 wins, 0 ties, 1 loss. It is worse on d." in verdict(c)


def test_luck_that_the_attacks_of_a_seed_share_is_no_evidence() -> None:
    by_seed = (5.0, 5.0, 5.0, 5.0, -4.0, -4.0)
    c = with_differences(
        **{attack: [d + i / 10 for d in by_seed] for i, attack in enumerate("abcd")}
    )
    assert c.by_pair.p < 0.05 < c.by_seed.p
    assert c.conclusion == "not shown"
    assert f"by whole seeds p = {c.by_seed.p:.3f})" in verdict(c)


def test_few_seeds_are_told() -> None:
    one = with_differences(**dict.fromkeys("abcdefgh", (2.0,)))
    assert one.conclusion == "ahead"
    assert one.of("undecided") == list("abcdefgh")
    said = verdict(one)
    assert (
        "mine is ahead of other in these runs, by 2.0 points in the mean over 8 attacks "
        "(1 seed, 8 pairs, sign-flip test p = 0.008)" in said
    )
    assert (
        "These runs show no more: with fewer than 6 seeds, whole seeds decide nothing, and p takes "
        "the pairs of one seed as independent of each other, which they need not be." in said
    )
    assert (
        "One victim seed: how results vary with initial weights and batches is not covered." in said
    )
    assert "One craft seed" in said
    narrow = "Intervals of 3 pairs are too narrow: where differences are normal they cover 72 %."
    assert ("Note", narrow) in statements(with_differences(em=SIX[:3]))


@pytest.mark.parametrize("seeds", [2, 5])
def test_below_six_seeds_nothing_is_better_or_worse(seeds: int) -> None:
    rows = {attack: [9 * d for d in SIX[:seeds]] for attack in "abcde"} | {
        "f": [-d / 2 for d in SIX[:seeds]]
    }
    ahead = with_differences(**rows)
    behind = with_differences(**{attack: [-d for d in row] for attack, row in rows.items()})
    assert (ahead.conclusion, behind.conclusion) == ("ahead", "behind")
    assert "mine is behind other in these runs, by " in verdict(behind)
    assert (
        (" It is behind on f." in verdict(ahead))
        == (" It is ahead on f." in verdict(behind))
        == (seeds >= 3)
    )
    depends = with_differences(
        em=[3 * d for d in SIX[:seeds]], lsp=[-d for d in SIX[:seeds]], ops=[0.0] * seeds
    )
    for c in (ahead, behind, depends):
        assert "better" not in verdict(c)
        assert "worse" not in verdict(c)


def test_attacks_of_fewer_seeds_than_others_are_told() -> None:
    c = with_differences(a=SIX, b=SIX[:1], c=SIX)
    assert (
        "Some attacks have fewer seeds than others (1 seed on b; 6 seeds on a, c), "
        "and the mean weighs all attacks alike." in verdict(c)
    )
    assert "(1 seed on b; 2 seeds on a)" in verdict(with_differences(a=SIX[:2], b=SIX[:1]))
    assert "fewer seeds than others" not in verdict(with_differences(a=SIX, b=SIX))


def test_results_of_different_seeds_are_no_pairs_and_said_to_be() -> None:
    made = [record("em", "mine", 0.6, seed=seed) for seed in (0, 1)] + [
        record("em", "other", 0.5, seed=seed) for seed in (2, 3, 4)
    ]
    made += [
        record("lsp", "mine", 0.6),
        record("lsp", "other", 0.5, craft_seed=1),
        record("ops", "mine", 0.6),
    ]
    c = compared(made)
    assert c.conclusion == "nothing"
    assert verdict(c).endswith(
        "nothing can be compared: on em, lsp, both mine and other have results, "
        "but none of the same victim seed and craft seed."
    )
    assert c.notes == tuple(
        f"On {where} seeds have a result of both defenses."
        for where in ("em, 0 of 5", "lsp, 0 of 2")
    )
    apart = (
        "em, lsp: no pair: "
        "no result of one shares victim seed and craft seed with one of the other."
    )
    assert ("Note", apart) in statements(c)
    paired = compared([*made, *(record("ops", "other", acc) for acc in (0.5,))])
    assert "+10.0 points in the mean over 1 of 3 attacks (1 seed, 1 pair)" in verdict(paired)
    assert paired.notes == c.notes


def test_failed_and_absent_cells_are_named_and_the_mean_counts_the_rest() -> None:
    made = records(
        {
            "em": {"mine": SIX_HIGH, "other": [0.5] * 6},
            "lsp": {"mine": [None] * 6, "other": [0.5] * 6},
            "ops": {"mine": [0.5]},
        }
    )
    made += records({"none": {"none": [0.9], "mine": [0.8]}})
    c = compared(made)
    assert [contrast.remark for contrast in c.attacks] == [
        "",
        "no pair: mine failed",
        "no pair: other was not run",
    ]
    assert "points in the mean over 1 of 3 attacks (6 seeds, 6 pairs" in verdict(c)
    assert c.of("undecided") == []
    assert ("Price on clean data", "mine 10.0 points, other not known.") in statements(c)
    assert ("Note", "ops, clean data: no pair: other was not run.") in statements(c)
    assert dict(statements(c))["Dash"].startswith("there is no pair.")
    assert "Dash" not in dict(statements(compared(records(BY_HAND))))


def test_the_cost_says_whose_seconds_it_counts() -> None:
    made = records({"em": {"mine": (0.5,), "other": (0.5,), "third": (0.5,)}})
    timed = [
        one if one.defense == "third" else replace(one, cpu_seconds={"purify": 1.0, "train": 2.0})
        for one in made
    ]
    cost = dict(statements(compared(timed)))["Cost"]
    assert cost == (
        "mine 3.0 s, other 3.0 s to purify and train (1.00×). CPU seconds from the records."
    )
    cost = dict(statements(compared([made[0], *timed[1:]])))["Cost"]
    assert cost.endswith("(1.50×). Wall seconds from the records, noisy.")


@pytest.mark.parametrize(
    "made",
    [
        [record("em", "mine", 0.5)],
        [record("em", "third", 0.5)],
        [record("none", "none", 0.9)],
        [record("em", "mine", math.nan)],
    ],
    ids=["one side", "neither", "clean only", "NaN"],
)
def test_nothing_to_compare_is_said(made: list[Record]) -> None:
    c = compared(made)
    assert c.conclusion == "nothing"
    assert verdict(c).endswith(
        "nothing can be compared: there is no attack on which both mine and other have a result."
    )
    assert "not known" in dict(statements(c))["Cost"]
    for text in (
        comparison_markdown([c], "t", {}),
        comparison_latex([c]),
        comparison_html([c], "t", {}),
        printed(c),
    ):
        assert "nothing can be compared" in " ".join(text.split())


def test_the_undefended_victims_can_be_the_reference() -> None:
    c = compared(records(BY_HAND), "mine", "none")
    assert c.attacks[0].difference == pytest.approx(61)
    assert (c.price_ours, c.price_reference) == pytest.approx((2, 0))


# Numbers in doubt


def purified(psnr: float) -> dict[str, object]:
    return {"facts": {"purify": {"psnr_mean": psnr}}}


def test_with_a_number_in_doubt_the_verdict_claims_nothing_and_says_why() -> None:
    made = records({"none": {"none": [0.9] * 6}, "em": {"none": [0.1] * 6, "other": [0.5] * 6}})
    made += records({"em": {"mine": SIX_HIGH}}, **purified(20.0))
    assert compared(made).conclusion == "better"
    c = compared([*made[:-1], replace(made[-1], facts={"purify": {"psnr_mean": 12.0}})])
    assert (c.conclusion, c.attacks[0].outcome) == ("doubtful", "undecided")
    assert c.by_pair.p < 0.05  # which the statements still tell
    assert verdict(c) == (
        "On made-up (net, quick), these results say nothing about mine and other (6 seeds, 6 "
        "pairs). mine keeps little of its images, whose PSNR to the input is below 18 dB: em (12.0 "
        "dB). Set it to change less, or fit it for longer."
    )
    assert "better" not in verdict(c)
    rows = [line.split() for line in printed(c, width=200).splitlines()]
    assert ["em", "10.0", "52.1!", "50.0", "+2.1", "[+1.9,", "+2.2]", "undecided"] in rows
    assert any(row[:5] == ["mean", "over", "attacks", "10.0", "52.1!"] for row in rows)
    assert dict(statements(c))["!"].startswith("the number is in doubt")
    for text in (comparison_markdown([c], "t", {}), comparison_latex([c])):
        assert "these results say nothing about mine and other" in text
        assert "52.1!" in text


def test_an_attack_that_does_not_bite_leaves_both_defenses_in_doubt() -> None:
    made = records(
        {"none": {"none": [0.6]}, "em": {"none": [0.55], "mine": [0.58], "other": [0.57]}}
    )
    c = compared(made)
    assert c.conclusion == "doubtful"
    assert c.attacks[0].doubted == {"undefended", "ours", "reference"}
    assert "there is nothing to defend against: em (55.0 %)." in verdict(c)
    # other defenses in the table do not matter
    third = records({"em": {"third": [0.5]}, "lsp": {"none": [0.1]}}, **purified(9.0))
    sound = records({"none": {"none": [0.9]}, "em": {"none": [0.1], "mine": [0.5], "other": [0.5]}})
    assert compared([*sound, *third]).conclusion == "too little"


def test_doubts_on_the_undefended_alone_leave_the_verdict() -> None:
    ten = {"data": {"classes": 10, "test": 1000, "train_measured": 1000}}
    made = records({"none": {"none": [0.9] * 6}, "em": {"mine": SIX_HIGH, "other": [0.5] * 6}})
    made += records({"em": {"none": [0.1] * 6}}, facts=ten, train_acc=0.1)
    c = compared(made)
    assert c.conclusion == "better"
    assert "accuracy on its own training images is near chance" in dict(statements(c))["In doubt"]
    assert "10.0!" in printed(c, width=200)


def test_a_failed_record_is_of_no_machine_of_its_own() -> None:
    made = [
        record("em", "mine", None, environment={}),
        record("em", "other", 0.5),
        record("lsp", "mine", 0.5),
        record("lsp", "other", 0.5),
    ]
    assert compared(made).notes == ()


def test_privileges_and_machines_are_noted() -> None:
    made = [
        record("em", "mine", 0.5, needs=("clean:500",)),
        record("em", "other", 0.5, environment={"device": "gpu"}),
    ]
    assert compared(made).notes == (
        "mine needs clean:500.",
        "The records were made on several kinds of machine: "
        "their seconds differ for that reason, and accuracies may.",
    )
