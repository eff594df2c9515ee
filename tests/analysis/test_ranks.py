"""Statistics of ranks, against the worked example of Demsar 2006 and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.statistics.ranks import _range_quantile, rank_test

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


@pytest.mark.parametrize("k", [3, 8, 40])
def test_the_critical_difference_is_of_the_studentized_range(k: int) -> None:
    assert _range_quantile(k) == pytest.approx(
        float(stats.studentized_range.ppf(0.95, k, np.inf)), abs=1e-8
    )
