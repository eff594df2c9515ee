"""Test whether the level of a number has moved: spread, differences, cumulative sums.

These are the statistics of ``regression``, on plain numbers. A *run* is one number, such as the
accuracy of one seed; a *cell* has several runs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma, stdtr
from scipy.stats import false_discovery_control

MIN_STD = 0.003  # of one run: the binomial spread of an accuracy of 0.9 on 10,000 test images

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Hashable)


class Spread(NamedTuple):
    """Standard deviation of one run, and the degrees of freedom that it was estimated with."""

    std: float
    dof: float


class Shift(NamedTuple):
    """Difference of two means, new minus old, and its two-sided p-value."""

    difference: float
    p: float

    @property
    def p_of_drop(self) -> float:
        """The one-sided p-value for a drop."""
        return self.p / 2 if self.difference < 0 else 1 - self.p / 2


def spreads(samples: Mapping[K, Sequence[Sequence[float]]]) -> dict[K, Spread]:
    """Estimate how much the runs of each cell scatter, learning from all cells.

    Variances are pooled over cells as far as the cells agree: each variance is drawn towards the
    common value, the more so the less the cells differ beyond chance (empirical Bayes; Smyth, 2004,
    Stat. Appl. Genet. Mol. Biol. 3:3). Cells that scatter alike thus get the pooled variance with
    all its degrees of freedom. A cell that scatters more than the others neither hides their drops
    nor raises false alarms. No standard deviation is below ``MIN_STD``, since a few runs may agree
    by chance.

    Args:
        samples: for each cell, samples that may have different means, such as the accepted runs and
            tonight's.

    Returns:
        Empty if no sample has two runs.
    """
    dof = {
        cell: sum(len(sample) - 1 for sample in parts if sample) for cell, parts in samples.items()
    }
    squares = {cell: math.fsum(map(_squares, parts)) for cell, parts in samples.items()}
    total = sum(dof.values())
    if not total:
        return {}
    variance, prior_dof = _prior([(squares[cell], n) for cell, n in dof.items() if n])
    if math.isinf(prior_dof):
        return {
            cell: Spread(max(math.sqrt(math.fsum(squares.values()) / total), MIN_STD), total)
            for cell in samples
        }
    moderated = {
        cell: (prior_dof * variance + squares[cell]) / (prior_dof + n) for cell, n in dof.items()
    }
    return {
        cell: Spread(max(math.sqrt(moderated[cell]), MIN_STD), min(prior_dof + n, total))
        for cell, n in dof.items()
    }


def _prior(cells: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The common variance of cells, and the degrees of freedom that it is worth.

    ``cells`` holds the sum of squares and the degrees of freedom of each cell. The method is that
    of Smyth (2004), section 6.2: mean and variance of the log sample variances, less the part that
    chance explains. If chance explains all of it, the degrees of freedom are infinite.
    """
    least = (MIN_STD / 10) ** 2  # a variance of zero has no logarithm
    half = np.array([n / 2 for _, n in cells])
    logs = np.log([max(squares / n, least) for squares, n in cells]) - digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=len(cells) > 1) - polygamma(1, half).mean())
    if beyond <= 1e-6:
        return math.nan, math.inf
    # between these bounds polygamma(1, x) falls from 1e6 to 1e-7
    worth = brentq(lambda x: polygamma(1, x) - beyond, 1e-3, 1e7)
    return math.exp(logs.mean() + digamma(worth) - math.log(worth)), 2 * worth


def shift(new: Sequence[float], old: Sequence[float], spread: Spread) -> Shift:
    """Test the difference of two samples' means by Student's t-test, with the given spread."""
    difference = fmean(new) - fmean(old)
    error = spread.std * math.sqrt(1 / len(new) + 1 / len(old))
    return Shift(difference, float(2 * stdtr(spread.dof, -abs(difference) / error)))


def common_shift(
    new: Mapping[K, Mapping[R, float]],
    old: Mapping[K, Mapping[R, float]],
    spread: Mapping[K, Spread],
) -> Shift | None:
    """Test whether all cells of ``new`` moved together.

    For each repetition, the distances of the runs from the old means of their cells are averaged
    over cells; a cell that scatters more counts less (by 1 / std). Student's t-test compares these
    averages. The repetition is the seed and not the cell: one draw of a victim's first weights
    serves many cells, so that cells are not independent. If the averages scatter less than those of
    independent cells would, which is luck, the spread of independent cells is used.

    Args:
        new, old: for each cell, its runs by repetition, for example by seed. ``old`` and ``spread``
            hold each cell of ``new``.
        spread: what ``spreads`` returns.

    Returns:
        None if there are fewer than two cells, or one repetition of each.
    """
    if len(new) < 2:
        return None
    before = {cell: fmean(old[cell].values()) for cell in new}
    weight = {cell: 1 / spread[cell].std for cell in new}
    ours, theirs = (
        _averages({cell: runs[cell] for cell in new}, before, weight) for runs in (new, old)
    )
    dof = len(ours) + len(theirs) - 2
    if not dof:
        return None
    independent = math.sqrt(len(new)) / math.fsum(weight.values())
    std = max(math.sqrt((_squares(ours) + _squares(theirs)) / dof), independent)
    return shift(ours, theirs, Spread(std, dof))


def _averages(
    runs: Mapping[K, Mapping[R, float]], before: Mapping[K, float], weight: Mapping[K, float]
) -> list[float]:
    """The weighted mean over cells of the distance from ``before``, for each repetition."""
    parts: dict[R, list[tuple[float, float]]] = {}
    for cell, values in runs.items():
        for repetition, value in values.items():
            parts.setdefault(repetition, []).append(
                (weight[cell] * (value - before[cell]), weight[cell])
            )
    return [
        math.fsum(x for x, _ in pairs) / math.fsum(w for _, w in pairs) for pairs in parts.values()
    ]


def adjusted(p: Mapping[K, float]) -> dict[K, float]:
    """Adjust p-values by Benjamini and Hochberg (1995).

    Among the cells whose adjusted value is at most q, on average at most a share q is false.
    """
    if not p:
        return {}
    return dict(zip(p, map(float, false_discovery_control(list(p.values()))), strict=True))


def cusum(
    nights: Sequence[Sequence[float]], std: float, slack: float = 0.5
) -> tuple[list[float], list[float]]:
    """Cumulative sums of one cell, upward (>= 0) and downward (<= 0), in standard errors.

    Each night's mean is compared with all runs before it, so that no true mean need be known
    (self-starting; Hawkins, 1987, The Statistician 36). The part of the difference that exceeds
    ``slack`` is summed (Page, 1954, Biometrika 41). A sum beyond 5 says that the level has moved:
    with a constant level, one of the two sums gets there about once in 465 nights (Montgomery,
    Statistical Quality Control).

    Args:
        nights: the runs of each night; the first night holds the runs to compare with. A night
            without runs changes nothing.
        std: standard deviation of one run.
        slack: in standard errors.

    Returns:
        Both sums, one value a night.
    """
    up, down = [0.0], [0.0]
    before: list[float] = []
    for night in nights:
        z = math.nan
        if night and before:
            error = std * math.sqrt(1 / len(night) + 1 / len(before))
            z = (fmean(night) - fmean(before)) / error
        up.append(up[-1] if math.isnan(z) else max(0.0, up[-1] + z - slack))
        down.append(down[-1] if math.isnan(z) else min(0.0, down[-1] + z + slack))
        before += night
    return up[1:], down[1:]


def _squares(values: Sequence[float]) -> float:
    """Sum of squared distances from the mean; 0 without values."""
    return math.fsum((x - fmean(values)) ** 2 for x in values)
