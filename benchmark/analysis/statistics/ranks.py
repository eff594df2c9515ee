"""Test whether defenses differ over attacks.

Sources: Friedman 1937 and Iman and Davenport 1980 (do several differ?), Nemenyi 1963 (which ones?),
both used as in Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006,
with attacks in place of data sets. The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
# With fewer, neither the tests nor a bootstrap over blocks means anything.
FEWEST_BLOCKS, FEWEST_NAMES = 5, 3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankTest:
    """Friedman's test and Nemenyi's critical difference.

    Attributes:
        names: ordered by mean rank, the lowest (best) first.
        ranks: mean rank of each name over the blocks; 1 is best.
        blocks: number of blocks.
        p: of Friedman's test in the form of Iman and Davenport, which is less conservative.
        critical: mean ranks that differ by less than this do not differ significantly at ``ALPHA``.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    blocks: int
    p: float
    critical: float

    @property
    def decided(self) -> bool:
        """Whether the names differ as a whole; only then may single pairs be compared."""
        return self.p < ALPHA

    @property
    def alike(self) -> tuple[tuple[int, int], ...]:
        """First and last index of each longest run of names that do not differ significantly.

        If the names as a whole do not differ, one run holds all of them.
        """
        if not self.decided:
            return ((0, len(self.names) - 1),)
        runs: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = max(i for i, other in enumerate(self.ranks) if other - rank < self.critical)
            if last > first and (not runs or last > runs[-1][1]):
                runs.append((first, last))
        return tuple(runs)


def rank_test(scores: Mapping[str, Sequence[float]]) -> RankTest:
    """Rank the names within each block (an attack), higher scores first, and test the ranks.

    Equal scores share the mean of their ranks.

    Args:
        scores: name -> one finite score a block.

    Raises:
        ValueError: for fewer than ``FEWEST_NAMES`` names or ``FEWEST_BLOCKS`` blocks; reports show
            the message.
    """
    from scipy.special import fdtrc

    k, n = len(scores), min((len(values) for values in scores.values()), default=0)
    if k < FEWEST_NAMES or n < FEWEST_BLOCKS:
        raise ValueError(
            f"{n} attacks and {k} defenses that cover them, at least {FEWEST_BLOCKS} and "
            f"{FEWEST_NAMES} are needed"
        )
    # rounded, so that equal means that were summed in different orders are equal
    table: Floats = np.array(list(scores.values()), dtype=float).round(9)  # (names, blocks)
    better = (table[None] > table[:, None]).sum(axis=1)
    equal = (table[None] == table[:, None]).sum(axis=1)
    ranks: Floats = better + (equal + 1) / 2
    # this corrects for ties; without ties it is n k (k^2 - 1) / 12
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    between = n * float(((ranks.mean(axis=1) - (k + 1) / 2) ** 2).sum())
    within = spread - between
    if spread == 0:
        p = 1.0
    elif within <= 1e-9:
        p = 0.0
    else:  # Iman and Davenport's F is the F of a two-way analysis of variance of the ranks
        p = float(fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * between / within))
    critical = _range_quantile(k) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    mean = ranks.mean(axis=1)
    names = list(scores)
    order = sorted(range(k), key=lambda i: (mean[i], names[i]))
    return RankTest(
        tuple(names[i] for i in order), tuple(float(mean[i]) for i in order), n, p, critical
    )


@cache
def _range_quantile(k: int) -> float:
    """The value that the range of ``k`` standard normal numbers exceeds with probability ``ALPHA``.

    ``scipy.stats.studentized_range`` gives the same, but its import and call take a second.
    """
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 2001)  # values of the lowest number
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    low, high = 1.0, 20.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        within = k * np.trapezoid(density * (ndtr(x + middle) - ndtr(x)) ** (k - 1), x)
        low, high = (middle, high) if within < 1 - ALPHA else (low, middle)
    return high
