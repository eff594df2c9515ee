"""Paired statistics: exact sign-flip test and bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95

# 2 / 2**6 < 0.05 < 2 / 2**5: with fewer units, no two-sided sign-flip test can reach 5 %.
FEWEST_FOR_TEST = 6

EXACT_UP_TO = 40  # units whose sign patterns are all counted

DRAWS = 100_000  # sign patterns drawn for more units than that

RESAMPLES = 9_999

SEED = 0

TINY = 1e-9  # points; differences of shares that are equal on paper differ by less


@dataclass(frozen=True)
class SignFlip:
    """The result of a two-sided sign-flip test.

    ``p`` is NaN below ``FEWEST_FOR_TEST`` units. ``error`` is the standard error of ``p``, 0 if
    ``p`` is exact.
    """

    units: int
    p: float
    error: float = 0.0

    @property
    def decidable(self) -> bool:
        """Whether there are enough units for a test."""
        return not math.isnan(self.p)


def bca_interval(points: Sequence[float]) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean, with a fixed seed.

    Source: Efron, Better Bootstrap Confidence Intervals, JASA 1987.

    Args:
        points: at least two values, not all equal.
    """
    import numpy as np
    from scipy.stats import bootstrap

    result = bootstrap(
        (np.asarray(points),),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="BCa",
        random_state=np.random.default_rng(SEED),  # the keyword that scipy 1.13 has too
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def sign_flip(values: Sequence[float]) -> SignFlip:
    """Two-sided sign-flip test of a sum (Fisher, The Design of Experiments, 1935, chapter III).

    If two defenses do equally well, each value is as likely as its negative. ``p`` is the share of
    all sign patterns whose absolute sum is at least the observed one. Up to ``EXACT_UP_TO`` values
    every pattern counts: the sign patterns of each half are enumerated, and the pairs of half sums
    that reach the observed sum are counted by bisection (Horowitz and Sahni, JACM 1974). For more
    values, ``DRAWS`` patterns are drawn with a fixed seed, and ``p`` is (hits + 1) / (draws + 1)
    (Phipson and Smyth, SAGMB 2010).
    """
    import numpy as np

    n, reached = len(values), abs(math.fsum(values)) - TINY
    if n < FEWEST_FOR_TEST:
        return SignFlip(n, math.nan)
    if n <= EXACT_UP_TO:
        left, right = _signed_sums(values[: n // 2]), _signed_sums(values[n // 2 :])
        hits = int((right.size - np.searchsorted(right, reached - left)).sum())
        # twice, since the mirror image of each pattern has the negative sum
        return SignFlip(n, min(1.0, 2 * hits / 2**n))
    rng = np.random.default_rng(SEED)
    sums = np.zeros(DRAWS)
    for value in values:
        sums += value * rng.choice((-1.0, 1.0), DRAWS)
    p = (int((np.abs(sums) >= reached).sum()) + 1) / (DRAWS + 1)
    return SignFlip(n, p, math.sqrt(p * (1 - p) / DRAWS))


def _signed_sums(values: Sequence[float]) -> NDArray[np.float64]:
    """The sums of all 2**n sign patterns of n values, sorted."""
    import numpy as np

    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return np.sort(sums)
