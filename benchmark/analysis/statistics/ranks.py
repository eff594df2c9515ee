"""Test whether defenses differ over attacks, and whether two tables order them alike.

Nothing is read or written here.

Sources: Friedman 1937 and Iman and Davenport 1980 (do several differ?), Nemenyi 1963 (which ones?),
both as Demsar puts them to use in "Statistical Comparisons of Classifiers over Multiple Data Sets",
JMLR 2006, with attacks in place of data sets; Kendall 1945 (tau-b); Efron and Tibshirani 1993
(percentile bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
FEWEST_BLOCKS, FEWEST_NAMES = (
    5,
    3,
)  # below, neither the tests nor a bootstrap over blocks says anything
RESAMPLES = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankTest:
    """Friedman's test and Nemenyi's critical difference.

    Attributes:
        names: lowest mean rank, the best, first.
        ranks: mean rank of each over the blocks; 1 is best.
        blocks: how many there are.
        p: of Friedman's test in the form of Iman and Davenport, which is less conservative.
        critical: two mean ranks that differ by less are not told apart at ``ALPHA``.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    blocks: int
    p: float
    critical: float

    @property
    def decided(self) -> bool:
        """May single pairs be looked at? Only if all together differ."""
        return self.p < ALPHA

    @property
    def alike(self) -> tuple[tuple[int, int], ...]:
        """First and last of each longest run of names that are not told apart.

        All of them if the test decides nothing.
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
    """Rank the names within each block (an attack), higher scores first, and tests the ranks.

    Equal scores share the mean of their ranks.

    Equal scores share the mean of their ranks.

    Args:
        scores: name -> one finite score a block.

    Raises:
        ValueError: for fewer than ``FEWEST_NAMES`` names or ``FEWEST_BLOCKS`` blocks; the message
            is fit to be shown.
    """
    from scipy.special import fdtrc

    k, n = len(scores), min((len(values) for values in scores.values()), default=0)
    if k < FEWEST_NAMES or n < FEWEST_BLOCKS:
        raise ValueError(
            f"{n} attacks and {k} defenses that cover them, at least {FEWEST_BLOCKS} and "
            f"{FEWEST_NAMES} are needed"
        )
    table: Floats = np.array(list(scores.values()), dtype=float).round(
        9
    )  # (names, blocks); sums in another order are equal
    better, equal = (
        (table[None] > table[:, None]).sum(axis=1),
        (table[None] == table[:, None]).sum(axis=1),
    )
    ranks: Floats = better + (equal + 1) / 2
    spread = float(
        ((ranks - (k + 1) / 2) ** 2).sum()
    )  # corrects for ties: without any it is n k (k^2 - 1) / 12
    between = n * float(((ranks.mean(axis=1) - (k + 1) / 2) ** 2).sum())
    within = spread - between
    if spread == 0:
        p = 1.0
    else:  # Iman and Davenport's F, which is that of a two-way analysis of variance of the ranks
        p = (
            float(fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * between / within))
            if within > 1e-9
            else 0.0
        )
    critical = _range_quantile(k) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    mean = ranks.mean(axis=1)
    names = list(scores)
    order = sorted(range(k), key=lambda i: (mean[i], names[i]))
    return RankTest(
        tuple(names[i] for i in order), tuple(float(mean[i]) for i in order), n, p, critical
    )


@cache
def _range_quantile(k: int) -> float:
    """What the range of ``k`` standard normal numbers exceeds with probability ``ALPHA``.

    ``scipy.stats.studentized_range`` says the same, but takes a second to be imported and asked.
    """
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 2001)  # where the lowest of the numbers may be
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    low, high = 1.0, 20.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        within = k * np.trapezoid(density * (ndtr(x + middle) - ndtr(x)) ** (k - 1), x)
        low, high = (middle, high) if within < 1 - ALPHA else (low, middle)
    return high


@dataclass(frozen=True)
class Tau:
    """Kendall's tau-b of the defenses' order, or why there is none.

    Attributes:
        value: -1 (reversed) to 1 (the same order); NaN if it is not defined.
        interval: 95 % percentile bootstrap over attacks, or None.
        attacks, defenses: how many it is of.
        reason: why there is no value, or no interval; else empty.
    """

    value: float
    interval: tuple[float, float] | None
    attacks: int
    defenses: int
    reason: str


Cells = Mapping[tuple[str, str], float]  # (attack, defense) -> accuracy


def tau_within(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b of the defenses' order within each attack, mean over attacks.

    Attacks with fewer than ``FEWEST_NAMES`` defenses in both tables, or on which one table has them
    all equal, take no part.
    """
    columns = {
        attack: names
        for attack, names in _common(first, second).items()
        if len(names) >= FEWEST_NAMES
    }
    found = {
        attack: tau_b(
            *(np.array([cells[attack, name] for name in names]) for cells in (first, second))
        )
        for attack, names in columns.items()
    }
    taus = np.array([value for value in found.values() if not math.isnan(value)])
    count = len(
        {
            name
            for attack, value in found.items()
            if not math.isnan(value)
            for name in columns[attack]
        }
    )
    if not len(taus):
        return Tau(math.nan, None, 0, 0, f"no attack has {FEWEST_NAMES} defenses in both")
    draws = taus[_resampled(len(taus), seed)].mean(axis=1)
    return _tau(float(taus.mean()), draws, len(taus), count)


def tau_over(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b of the order of the defenses' means over attacks.

    Only attacks and defenses that both tables cover without a gap take part.

    Attacks are those with ``FEWEST_NAMES`` defenses in both tables, defenses those that have each
    of these attacks.
    """
    columns = {
        attack: names
        for attack, names in _common(first, second).items()
        if len(names) >= FEWEST_NAMES
    }
    names = sorted(set.intersection(*map(set, columns.values()))) if columns else []
    if len(names) < FEWEST_NAMES:
        return Tau(
            math.nan,
            None,
            len(columns),
            len(names),
            f"fewer than {FEWEST_NAMES} defenses cover the same attacks in both",
        )
    x, y = (
        np.array([[cells[attack, name] for name in names] for attack in columns])
        for cells in (first, second)
    )
    value = float(tau_b(x.mean(axis=0), y.mean(axis=0)))
    if math.isnan(value):
        return Tau(value, None, len(columns), len(names), "one of the two has all defenses equal")
    picks = _resampled(len(columns), seed)
    draws = tau_b(x[picks].mean(axis=1), y[picks].mean(axis=1))
    return _tau(value, draws, len(columns), len(names))


def tau_b(x: Floats, y: Floats) -> Any:
    """Kendall's tau-b along the last axis; NaN where one of the two has all values equal.

    Differences under 1e-9 are ties.
    """
    x, y = np.round(x, 9), np.round(y, 9)
    a, b = (
        np.sign(values[..., :, None] - values[..., None, :]) for values in (x, y)
    )  # (..., n, n)
    pairs = np.sqrt((a * a).sum(axis=(-2, -1)) * (b * b).sum(axis=(-2, -1)))
    return np.divide(
        (a * b).sum(axis=(-2, -1)), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0
    )[()]


def _common(first: Cells, second: Cells) -> dict[str, list[str]]:
    """attack -> the defenses that have a number for it in both tables."""
    found: dict[str, list[str]] = {}
    for attack, defense in sorted(set(first) & set(second)):
        if math.isfinite(first[attack, defense]) and math.isfinite(second[attack, defense]):
            found.setdefault(attack, []).append(defense)
    return found


def _resampled(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def _tau(value: float, draws: Floats, attacks: int, defenses: int) -> Tau:
    if attacks < FEWEST_BLOCKS:
        return Tau(
            value, None, attacks, defenses, f"fewer than {FEWEST_BLOCKS} attacks give no interval"
        )
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Tau(value, (float(low), float(high)), attacks, defenses, "")
