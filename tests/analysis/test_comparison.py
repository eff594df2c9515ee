"""A defense against a reference: the verdict, and numbers worked out by hand or by counting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmark.analysis import comparison as statistics
from benchmark.analysis.comparison import COVERAGE, comparisons
from benchmark.analysis.statistics import paired
from benchmark.analysis.statistics.paired import DRAWS, SignFlip, bca_interval, sign_flip
from benchmark.analysis.table import to_table
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


def test_a_comparison_by_hand() -> None:
    c = compared(records(BY_HAND))
    em, lsp = c.attacks
    assert (em.column, lsp.column) == ("em", "lsp")
    assert em.points == pytest.approx((4, 2, 6))
    assert lsp.points == pytest.approx((-1, 0, 1))
    assert (em.undefended, em.ours, em.reference, em.difference) == pytest.approx(
        (0.12, 0.73, 0.69, 4)
    )
    assert c.mean.points == pytest.approx((1.5, 1, 3.5))
    assert (c.mean.undefended, c.mean.ours, c.mean.reference, c.mean.difference) == pytest.approx(
        (0.21, 0.67, 0.65, 2)
    )
    assert c.clean.points == pytest.approx((4, 3, 2))
    assert (c.price_ours, c.price_reference) == pytest.approx((2, 5))
    assert (c.seconds_ours, c.seconds_reference, c.cost_ratio) == pytest.approx((15, 10, 1.5))
    assert (c.seeds, c.craft_seeds, c.pairs, c.compared) == (3, 1, 6, 2)
    assert (c.of("win"), c.of("tie"), c.of("loss"), c.of("undecided")) == (["em"], ["lsp"], [], [])
    assert c.by_pair.p == naive_p(em.points + lsp.points)
    assert not c.by_seed.decidable
    assert c.notes == ()


def test_the_mean_weighs_attacks_alike_whatever_their_seeds() -> None:
    c = with_differences(a=(2, 2, 2, 2), b=(6,))
    assert c.mean.difference == pytest.approx(4)
    assert (c.mean.points, c.mean.interval) == ((), None)
    assert c.mean.remark == "no interval: not every seed has every attack"


def test_swapping_the_two_mirrors_everything() -> None:
    one, two = compared(records(BY_HAND)), compared(records(BY_HAND), "other", "mine")
    assert two.mean.difference == pytest.approx(-one.mean.difference)
    assert two.by_pair == one.by_pair
    assert two.of("loss") == one.of("win")
    assert (two.price_ours, two.seconds_ours) == (one.price_reference, one.seconds_reference)


def test_other_defenses_and_the_order_of_records_do_not_matter() -> None:
    made = records(BY_HAND)
    more = [
        record("em", "third", 0.99),
        record("em", "third", 0.99, seed=7),
        record("new", "third", 0.5),
    ]
    assert compared([*more, *reversed(made)]) == compared(made)


def test_only_runs_of_the_same_seed_are_pairs() -> None:
    made = [record("em", "mine", 0.6, seed=seed) for seed in (0, 1, 2)] + [
        record("em", "other", 0.5, seed=seed) for seed in (1, 2, 3)
    ]
    made += [
        record("em", "mine", 0.9, seed=1, craft_seed=5),
        record("em", "other", 0.6, seed=1, craft_seed=5),
    ]
    c = compared(made)
    assert c.attacks[0].points == pytest.approx((10, 30, 10))
    assert (c.seeds, c.craft_seeds, c.pairs) == (2, 2, 3)
    assert c.notes == ("On em, 3 of 5 seeds have a result of both defenses.",)
    assert "One craft seed" not in verdict(c)


def test_a_craft_seed_that_changes_nothing_makes_no_further_pair() -> None:
    made = [
        record("ops", name, acc, seed=1, craft_seed=craft)
        for craft in (0, 1)
        for name, acc in (("mine", 0.6), ("other", 0.5))
    ]
    assert compared(made).pairs == 1


def test_poisons_that_were_not_the_same_are_told() -> None:
    made = [
        record(
            "em",
            name,
            0.5,
            seed=seed,
            artifacts={"poison": "a" if (name, seed) != ("mine", 1) else "b"},
        )
        for name in ("mine", "other")
        for seed in (0, 1)
    ]
    (note,) = compared(made).notes
    assert note.startswith(
        "On em, not all defenses faced the same poisoned images in 1 seed: made again elsewhere"
    )


def test_groups_are_compared_apart_and_share_no_number() -> None:
    found = comparisons(
        to_table(
            [*records(BY_HAND), *records({"em": {"mine": (0.5,), "other": (0.6,)}}, victim="net2")]
        ),
        "mine",
        "other",
    )
    assert [(c.victim, c.pairs) for c in found] == [("net", 6), ("net2", 1)]
    assert math.isnan(found[1].price_ours)


def test_clean_data_are_those_of_every_poison_ratio() -> None:
    made = records({"none": BY_HAND["none"]})
    made += [one for ratio in (0.5, 1.0) for one in records({"em": BY_HAND["em"]}, ratio=ratio)]
    found = comparisons(to_table(made), "mine", "other")
    assert [(c.ratio, round(c.price_ours, 9)) for c in found] == [(0.5, 2), (1, 2)]
    assert "(net, quick, poison ratio 0.5)" in verdict(found[0])


# The sign-flip test


def naive_p(values: Sequence[float]) -> float:
    observed = abs(sum(values))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@pytest.mark.parametrize(
    "values",
    [
        (1, 1, 1, 1, 1, 1),
        (1, -1, 1, -1, 1, -1),
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 1, 2, 3),
        (0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.7),
        (-3.1, 2.4, 0.6, 0.1, -0.9, 5.5, 1.2, 1.2, -0.1),
        tuple(np.random.default_rng(3).normal(0.5, 1, 11)),
    ],
)
def test_p_is_that_of_naive_counting(values: Sequence[float]) -> None:
    assert sign_flip(values) == SignFlip(len(values), naive_p(values))


def test_six_equal_signs_are_the_least_that_can_be_significant() -> None:
    assert sign_flip([1.0] * 6).p == 2 / 64 < statistics.ALPHA
    assert math.isnan(sign_flip([100.0] * 5).p)
    assert not sign_flip([]).decidable


def test_forty_pairs_are_still_exact() -> None:
    test = sign_flip([1.0] * 39 + [0.5])
    assert test == SignFlip(40, 2 / 2**40)


def test_beyond_it_random_patterns_come_near(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 18).tolist()
    exact = sign_flip(values)
    monkeypatch.setattr(paired, "EXACT_UP_TO", 10)
    drawn = sign_flip(values)
    assert drawn == sign_flip(values)
    assert 0 < drawn.error == pytest.approx(math.sqrt(exact.p * (1 - exact.p) / DRAWS), rel=0.1)
    assert abs(drawn.p - exact.p) < 4 * drawn.error
    # never 0, since the observed pattern is one of them
    assert sign_flip([5.0] * 60).p == 1 / (DRAWS + 1)


# The interval


def naive_bca(points: Sequence[float]) -> tuple[float, float]:
    """Compute BCa after Efron 1987, from all n**n resamples instead of random ones."""
    from scipy.stats import norm

    x = np.array(points)
    n = len(x)
    means = np.array(list(itertools.product(x, repeat=n))).mean(axis=1).round(9)
    centre = (np.mean(means < x.mean().round(9)) + np.mean(means <= x.mean().round(9))) / 2
    z0 = norm.ppf(centre)
    deviations = x.mean() - np.array([np.delete(x, i).mean() for i in range(n)])
    a = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shifted = [norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in norm.ppf((0.025, 0.975))]
    low, high = np.quantile(means, shifted)
    return float(low), float(high)


@pytest.mark.parametrize(
    "points",
    [(0.1, 0.35, 0.2, 1.2, 4.0), (-1.3, 0.4, 0.9, 2.1, 7.7), (1.0, 2.2, 3.1, 2.9, 0.6, -4.5)],
)
def test_the_interval_is_that_of_all_resamples(points: Sequence[float]) -> None:
    assert bca_interval(points) == pytest.approx(
        naive_bca(points), abs=0.03 * (max(points) - min(points))
    )
    assert bca_interval(points) == bca_interval(points)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_the_stated_coverage_is_the_measured_one(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(2000, n))
    ends = bootstrap(
        (x,),
        np.mean,
        axis=1,
        method="BCa",
        n_resamples=999,
        batch=100,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert 100 * np.mean((ends.low <= 0) & (ends.high >= 0)) == pytest.approx(COVERAGE[n], abs=3)


@pytest.mark.parametrize(
    ("points", "outcome", "remark"),
    [
        ((5.0,), "undecided", "no interval: 1 pair, and at least 3 are needed"),
        ((5.0, 5.1), "undecided", "no interval: 2 pairs, and at least 3 are needed"),
        (
            (0.0, 0.0, 0.0),
            "tie",
            "no interval: all 3 differences are equal, so that resampling shows no spread",
        ),
        (
            (2.0, 2.0, 2.0),
            "win",
            "no interval: all 3 differences are equal, so that resampling shows no spread",
        ),
        (
            (0.4, 0.4, 0.4),
            "tie",
            "no interval: all 3 differences are equal, so that resampling shows no spread",
        ),
        ((2.0, 2.1, 2.3), "win", ""),
        ((-2.0, -2.1, -2.3), "loss", ""),
        ((0.3, 0.4, 0.5), "tie", ""),  # shown, but below the margin
        ((-4.0, 2.0, 9.0), "tie", ""),  # above the margin, but the interval covers 0
    ],
)
def test_outcomes(points: Sequence[float], outcome: str, remark: str) -> None:
    (contrast,) = with_differences(em=points).attacks
    assert (contrast.outcome, contrast.remark) == (outcome, remark)
    assert (contrast.interval is None) == bool(remark)


# What is said


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
