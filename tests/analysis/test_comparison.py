"""A defense against a reference: numbers worked out by hand or by naive counting."""

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
    verdict,
)
from support.made_up_records import (
    BY_HAND,
    compared,
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
