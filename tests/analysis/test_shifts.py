"""The statistics of regression nights, against numbers worked out by hand or by scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from benchmark.analysis.statistics.shifts import (
    MIN_STD,
    Spread,
    adjusted,
    common_shift,
    cusum,
    shift,
    spreads,
)

# Statistics


def test_cells_that_scatter_alike_get_the_pooled_deviation() -> None:
    found = spreads({"x": [(0.50, 0.52), (0.60,)], "y": [(0.70, 0.72)], "z": [(0.1,), (0.3,)]})
    assert set(found) == {"x", "y", "z"}
    assert found["x"] == found["y"] == found["z"]
    # each of the two pairs has the variance 2 * 0.01**2
    assert found["x"].std == pytest.approx(math.sqrt(0.0002))
    assert found["x"].dof == 2


def test_a_deviation_is_never_below_the_floor() -> None:
    assert spreads({"x": [(0.5, 0.5, 0.5)], "y": [(0.7, 0.7)]})["x"] == (MIN_STD, 3)


def test_without_two_runs_of_anything_there_is_no_spread() -> None:
    assert spreads({"x": [(0.5,), (0.6,)], "y": [(0.5,), ()]}) == {}
    assert spreads({}) == {}


def test_the_worth_of_the_common_variance_is_found_again() -> None:
    """Cells whose variances are drawn from s0**2 * d0 / chi2(d0), which the estimate assumes."""
    rng = np.random.default_rng(0)
    std = 0.01 * np.sqrt(8 / rng.chisquare(8, 3000))
    runs = std[:, None] * rng.standard_normal((3000, 5))
    found = spreads({i: [tuple(row)] for i, row in enumerate(runs.tolist())})
    assert found[0].dof == pytest.approx(4 + 8, rel=0.15)
    own, common = float(runs[0].var(ddof=1)), 0.01**2
    assert found[0].std ** 2 == pytest.approx((8 * common + 4 * own) / 12, rel=0.1)


def test_a_restless_cell_keeps_its_scatter_to_itself() -> None:
    calm: dict[str, list[tuple[float, ...]]] = {
        f"calm{i}": [(0.5, 0.504, 0.508), (0.5, 0.504, 0.508)] for i in range(20)
    }
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
    # of the new seeds; those of the old ones are -0.03 and 0.03
    first, second = (2 * -0.06 - 0.09) / 3, (2 * 0.0 - 0.03) / 3
    assert found is not None
    assert found.difference == pytest.approx((first + second) / 2)
    assert found.p == pytest.approx(ttest_ind([first, second], [-0.03, 0.03]).pvalue)


def test_averages_that_agree_by_luck_are_not_believed() -> None:
    # both seeds average to the same
    old = {cell: {0: 0.5 + (cell % 2) * 0.02, 1: 0.52 - (cell % 2) * 0.02} for cell in range(4)}
    found = common_shift(
        {cell: {0: 0.50, 1: 0.50} for cell in range(4)},
        old,
        dict.fromkeys(range(4), Spread(0.01, 9)),
    )
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
    assert adjusted({"a": 0.01, "b": 0.5, "c": 0.02}) == {
        "a": pytest.approx(0.03),
        "b": 0.5,
        "c": pytest.approx(0.03),
    }
    assert adjusted({}) == {}


def test_cumulative_sums_by_hand() -> None:
    """By hand, z of the nights is 0, then -1.633, nothing for the empty night, then +1.155.

    -1.633 is (0.48 - 0.5) / (0.01 * sqrt(1 + 1/2)); +1.155 is against the mean 0.49333.
    """
    up, down = cusum([(0.50,), (0.50,), (0.48,), (), (0.506666667,)], 0.01)
    assert up == pytest.approx([0, 0, 0, 0, 0.013333334 / (0.01 * math.sqrt(1 + 1 / 3)) - 0.5])
    z = -0.02 / (0.01 * math.sqrt(1.5))
    assert down == pytest.approx(
        [0, 0, z + 0.5, z + 0.5, min(0.0, z + 0.5 + 0.013333334 / (0.01 * math.sqrt(4 / 3)) + 0.5)]
    )
    assert cusum([], 0.01) == ([], [])
