"""Statistics of ranks, against the worked example of Demsar 2006, scipy, and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.statistics.ranks import (
    _range_quantile,
    rank_test,
    tau_b,
    tau_over,
    tau_within,
)

# Demsar 2006, table 6: AUC of C4.5, with parameter m, with cf, with both, on 14 data sets.
DEMSAR = """
.763 .768 .771 .798   .599 .591 .590 .569   .954 .971 .968 .967
.628 .661 .654 .657   .882 .888 .886 .898   .936 .931 .916 .931
.661 .668 .609 .685   .583 .583 .563 .625   .775 .838 .866 .875
1.000 1.000 1.000 1.000   .940 .962 .965 .962   .619 .666 .614 .669
.972 .981 .9751 .975  .957 .978 .946 .970
"""


def demsar() -> dict[str, list[float]]:
    table = np.array(DEMSAR.split(), dtype=float).reshape(14, 4)
    return dict(zip(("C4.5", "m", "cf", "m+cf"), table.T.tolist(), strict=True))


def test_demsars_example() -> None:
    test = rank_test(demsar())
    assert test.names == ("m+cf", "m", "cf", "C4.5")
    assert test.ranks == pytest.approx((1.964, 2.000, 2.893, 3.143), abs=5e-4)
    assert test.critical == pytest.approx(1.25, abs=5e-3)
    assert test.alike == ((0, 3),)  # "not powerful enough": the largest difference is 1.18
    # scipy corrects for ties, as rank_test does and the paper does not
    chi = stats.friedmanchisquare(*demsar().values()).statistic
    f = 13 * chi / (14 * 3 - chi)
    assert test.p == pytest.approx(stats.f.sf(f, 3, 39))


def test_names_that_are_told_apart_share_no_bar() -> None:
    scores = {
        name: [value + 0.001 * i for i in range(12)]
        for name, value in (("a", 0.9), ("b", 0.8), ("c", 0.2), ("d", 0.1))
    }
    test = rank_test(scores)
    assert test.ranks == (1, 2, 3, 4)
    assert test.p == 0
    assert test.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 12)), abs=1e-3)  # 1.354
    assert test.alike == ((0, 1), (1, 2), (2, 3))


def test_nothing_is_told_apart_where_all_are_equal() -> None:
    test = rank_test({name: [0.5] * 6 for name in "abc"})
    assert (test.p, test.decided, test.alike, test.ranks) == (1, False, ((0, 2),), (2, 2, 2))


@pytest.mark.parametrize(("names", "blocks"), [(2, 10), (3, 4), (0, 0)])
def test_too_few_is_said(names: int, blocks: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"{blocks} attacks and {names} defenses that cover them, at least 5 and 3 are needed",
    ):
        rank_test({str(i): [0.5] * blocks for i in range(names)})


def naive(x: list[float], y: list[float]) -> float:
    """Compute the tau-b of Kendall 1945 by counting pairs."""
    agree = first = second = 0
    for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2):
        agree += (a > c) * (b > d) + (a < c) * (b < d) - (a > c) * (b < d) - (a < c) * (b > d)
        first, second = first + (a != c), second + (b != d)
    return agree / math.sqrt(first * second) if first and second else math.nan


def test_tau_is_kendalls_b() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.integers(0, 4, (2, 6)).astype(float)
        expected = naive(x.tolist(), y.tolist())
        assert tau_b(x, y) == pytest.approx(expected, nan_ok=True)
        assert stats.kendalltau(x, y).statistic == pytest.approx(expected, nan_ok=True)
    both = tau_b(np.array([[1.0, 2, 3], [1, 2, 3]]), np.array([[1.0, 2, 3], [3, 2, 1]]))
    assert both.tolist() == [1, -1]


def table(rows: dict[str, list[float]]) -> dict[tuple[str, str], float]:
    return {
        (attack, f"d{i}"): value
        for attack, values in rows.items()
        for i, value in enumerate(values)
    }


def test_tau_within_is_the_mean_over_attacks() -> None:
    ours = table({"a": [1, 2, 3], "b": [1, 2, 3], "few": [1, 2], "tied": [5, 5, 5]})
    theirs = table(
        {"a": [1, 2, 3], "b": [2, 1, 3], "few": [1, 2], "tied": [1, 2, 3], "other": [1, 2, 3]}
    )
    found = tau_within(ours, theirs)
    assert found.value == pytest.approx((1 + 1 / 3) / 2)
    assert (found.attacks, found.defenses) == (2, 3)
    assert (found.interval, found.reason) == (None, "fewer than 5 attacks give no interval")


def test_tau_over_attacks_is_that_of_the_means() -> None:
    ours = table({"a": [1, 2, 9], "b": [9, 2, 3]})  # means 5, 2, 6
    theirs = table({"a": [3, 1, 2], "b": [3, 1, 2]})
    assert tau_over(ours, theirs).value == pytest.approx(1 / 3)
    gaps = table({"a": [1, 2, 9, math.nan], "b": [math.nan, 2, 3, 4]})
    assert (
        tau_over(gaps, table({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4]})).reason
        == "fewer than 3 defenses cover the same attacks in both"
    )


def test_the_interval_is_that_of_all_resamples() -> None:
    """One of five attacks has the order reversed, so a resample's mean is 1 - 2 k / 5.

    The count k of that attack in a resample is binomial.
    """
    ours = table({name: [1, 2, 3] for name in "abcde"})
    theirs = table({**{name: [1, 2, 3] for name in "abcd"}, "e": [3, 2, 1]})
    found = tau_within(ours, theirs)
    assert found.value == pytest.approx(0.6)
    quantiles = [1 - 2 * stats.binom(5, 0.2).ppf(share) / 5 for share in (0.975, 0.025)]
    assert found.interval == pytest.approx(quantiles)
    assert tau_within(ours, theirs) == found  # seeded


@pytest.mark.parametrize("k", [3, 8, 40])
def test_the_critical_difference_is_of_the_studentized_range(k: int) -> None:
    assert _range_quantile(k) == pytest.approx(
        float(stats.studentized_range.ppf(0.95, k, np.inf)), abs=1e-8
    )
