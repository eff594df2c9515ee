"""Test whether defenses differ over attacks, and whether two tables order them alike.

Sources: Friedman 1937 and Iman and Davenport 1980 (do several differ?), Nemenyi 1963 (which ones?),
both used as in Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006,
with attacks in place of data sets; Kendall 1945 (tau-b); Efron and Tibshirani 1993 (percentile
bootstrap). The module is pure: it reads and writes no files.
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
# With fewer, neither the tests nor a bootstrap over blocks means anything.
FEWEST_BLOCKS, FEWEST_NAMES = 5, 3
RESAMPLES = 2000

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


@dataclass(frozen=True)
class Tau:
    """Kendall's tau-b of the defenses' order, or why there is none.

    Attributes:
        value: -1 (reversed) to 1 (the same order); NaN if not defined.
        interval: 95 % percentile bootstrap interval over attacks, or None.
        attacks, defenses: how many take part.
        reason: why there is no value, or no interval; else empty.
    """

    value: float
    interval: tuple[float, float] | None
    attacks: int
    defenses: int
    reason: str


Cells = Mapping[tuple[str, str], float]  # (attack, defense) -> accuracy


def tau_within(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b of the defenses' order within each attack, averaged over attacks.

    Attacks with fewer than ``FEWEST_NAMES`` defenses in both tables take no part, nor do attacks
    for which one table has all defenses equal.
    """
    columns = {
        attack: names
        for attack, names in _common(first, second).items()
        if len(names) >= FEWEST_NAMES
    }
    by_attack = {
        attack: tau_b(
            *(np.array([cells[attack, name] for name in names]) for cells in (first, second))
        )
        for attack, names in columns.items()
    }
    by_attack = {attack: tau for attack, tau in by_attack.items() if not math.isnan(tau)}
    taus = np.array(list(by_attack.values()))
    count = len({name for attack in by_attack for name in columns[attack]})
    if not len(taus):
        return Tau(math.nan, None, 0, 0, f"no attack has {FEWEST_NAMES} defenses in both")
    draws = taus[_resampled(len(taus), seed)].mean(axis=1)
    return _tau(float(taus.mean()), draws, len(taus), count)


def tau_over(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b of the order of the defenses' means over attacks.

    Only attacks with at least ``FEWEST_NAMES`` defenses in both tables take part, and only defenses
    with a number for each of these attacks in both tables.
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
    # (..., n) -> (..., n, n)
    a, b = (np.sign(values[..., :, None] - values[..., None, :]) for values in (x, y))
    pairs = np.sqrt((a * a).sum(axis=(-2, -1)) * (b * b).sum(axis=(-2, -1)))
    return np.divide(
        (a * b).sum(axis=(-2, -1)), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0
    )[()]


def _common(first: Cells, second: Cells) -> dict[str, list[str]]:
    """The defenses of each attack that have a number in both tables."""
    defenses: dict[str, list[str]] = {}
    for attack, defense in sorted(set(first) & set(second)):
        if math.isfinite(first[attack, defense]) and math.isfinite(second[attack, defense]):
            defenses.setdefault(attack, []).append(defense)
    return defenses


def _resampled(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def _tau(value: float, draws: Floats, attacks: int, defenses: int) -> Tau:
    if attacks < FEWEST_BLOCKS:
        return Tau(
            value, None, attacks, defenses, f"fewer than {FEWEST_BLOCKS} attacks give no interval"
        )
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Tau(value, (float(low), float(high)), attacks, defenses, "")
