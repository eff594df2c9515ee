"""Measure whether two tables of accuracies put the same cells in the same order.

A cell is a pair of attack and defense. Sources: Kendall 1945 (tau-b); Efron and Tibshirani 1993
(percentile bootstrap), with whole attacks drawn, since the cells of one attack share its images.
``scipy.stats.kendalltau`` knows neither ties within a tolerance nor pairs within an attack, so the
pairs are counted here. The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.analysis.statistics.ranks import FEWEST_BLOCKS, FEWEST_NAMES

# Accuracies closer than this are a tie in their table. Most published numbers and many of ours are
# one run; a run has a spread of about a point over seeds, the gap of two thus one of 1.4 points.
TIE = 0.02
RESAMPLES = 2000

Floats = NDArray[np.float64]
Cell = tuple[str, str]  # attack, defense
Cells = Mapping[Cell, float]  # -> accuracy in [0, 1]


@dataclass(frozen=True)
class Tau:
    """Kendall's tau-b of two orders, or why there is none.

    Attributes:
        value: -1 (reversed) to 1 (the same order); NaN if not defined.
        interval: 95 % percentile bootstrap interval over attacks, or None.
        attacks, defenses, cells: how many take part.
        pairs: how many pairs are compared, ties included.
        reason: why there is no value, or no interval; else empty.
    """

    value: float
    interval: tuple[float, float] | None
    attacks: int
    defenses: int
    cells: int
    pairs: int
    reason: str


def tau_cells(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b over all pairs of cells that both tables have, also of cells of different attacks.

    Args:
        first, second: the tables; cells that one of them lacks, or has as NaN, take no part.
        seed: of the bootstrap.
    """
    return _tau_of_pairs(_common(first, second), first, second, seed, within=False)


def tau_within(first: Cells, second: Cells, seed: int = 0) -> Tau:
    """Tau-b over the pairs of defenses that face the same attack.

    All such pairs count alike: the attacks are pooled and not averaged, since an attack with two
    defenses has one pair, and its tau-b is 1 or -1 whatever the gap.
    """
    columns = {attack: names for attack, names in _common(first, second).items() if len(names) > 1}
    return _tau_of_pairs(columns, first, second, seed, within=True)


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
    sizes = len(columns), len(names), len(columns) * len(names), math.comb(len(names), 2)
    if len(names) < FEWEST_NAMES:
        reason = f"fewer than {FEWEST_NAMES} defenses cover the same attacks in both"
        return Tau(math.nan, None, *sizes, reason)
    x, y = (
        np.array([[cells[attack, name] for name in names] for attack in columns])
        for cells in (first, second)
    )
    value = float(tau_b(x.mean(axis=0), y.mean(axis=0)))
    picks = np.random.default_rng(seed).integers(0, len(columns), (RESAMPLES, len(columns)))
    return _tau(value, tau_b(x[picks].mean(axis=1), y[picks].mean(axis=1)), sizes)


def tau_b(x: Floats, y: Floats) -> Any:
    """Kendall's tau-b along the last axis; NaN where one of the two has all values tied.

    Differences below ``TIE`` are ties.
    """
    a, b = _signs(x), _signs(y)
    return _ratio(*(part.sum(axis=(-2, -1)) for part in (a * b, a * a, b * b)))[()]


def discordant(first: Cells, second: Cells) -> list[tuple[Cell, Cell]]:
    """The pairs of cells that the tables put in opposite order; neither table has them tied.

    The first cell of each pair is ahead in ``first`` and behind in ``second``. The pairs with the
    largest sum of both gaps come first.
    """
    cells = [(attack, name) for attack, names in _common(first, second).items() for name in names]
    x, y = (np.array([table[cell] for cell in cells]) for table in (first, second))
    swapped = np.argwhere((_signs(x) > 0) & (_signs(y) < 0)).tolist()
    width = {(i, j): x[i] - x[j] + y[j] - y[i] for i, j in swapped}
    order = sorted(width, key=lambda pair: (-width[pair], pair))
    return [(cells[i], cells[j]) for i, j in order]


def _tau_of_pairs(
    columns: Mapping[str, list[str]], first: Cells, second: Cells, seed: int, within: bool
) -> Tau:
    cells = [(attack, name) for attack, names in columns.items() for name in names]
    per_attack = [len(names) for names in columns.values()]
    pairs = sum(math.comb(n, 2) for n in (per_attack if within else [len(cells)]))
    sizes = len(columns), len({name for _, name in cells}), len(cells), pairs
    if not pairs:
        reason = f"{'no attack has two defenses' if within else 'fewer than two cells are'} in both"
        return Tau(math.nan, None, *sizes, reason)
    a, b = (_signs(np.array([table[cell] for cell in cells])) for table in (first, second))
    belongs = np.array([[cell[0] == attack for cell in cells] for attack in columns], dtype=float)
    # sums over the pairs of each two attacks: (attacks, attacks)
    sums = [belongs @ part @ belongs.T for part in (a * b, a * a, b * b)]

    def tau(counts: Floats) -> Any:
        """Tau-b where attack i takes part ``counts[..., i]`` times."""
        if within:
            return _ratio(*(counts @ np.diag(part) for part in sums))
        return _ratio(*(((counts @ part) * counts).sum(axis=-1) for part in sums))

    n = len(columns)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    return _tau(float(tau(np.ones(n))), tau(draws.astype(float)), sizes)


def _signs(values: Floats) -> Floats:
    """For each two values along the last axis: 1 if the first is larger, -1 if smaller, 0 if tied.

    (..., n) -> (..., n, n)
    """
    gaps = values[..., :, None] - values[..., None, :]
    signs: Floats = np.where(np.abs(gaps) < TIE - 1e-9, 0.0, np.sign(gaps))
    return signs


def _ratio(agree: Floats, first: Floats, second: Floats) -> Any:
    """Tau-b from the sum of the products of signs and the numbers of pairs that are no ties."""
    pairs = np.sqrt(first * second)
    return np.divide(agree, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


def _common(first: Cells, second: Cells) -> dict[str, list[str]]:
    """The defenses of each attack that have a number in both tables."""
    defenses: dict[str, list[str]] = {}
    for attack, defense in sorted(set(first) & set(second)):
        if math.isfinite(first[attack, defense]) and math.isfinite(second[attack, defense]):
            defenses.setdefault(attack, []).append(defense)
    return defenses


def _tau(value: float, draws: Floats, sizes: tuple[int, int, int, int]) -> Tau:
    if math.isnan(value):
        reason = f"one of the two has no gap of {100 * TIE:g} points"
        return Tau(value, None, *sizes, reason)
    if sizes[0] < FEWEST_BLOCKS:
        reason = f"fewer than {FEWEST_BLOCKS} attacks give no interval"
        return Tau(value, None, *sizes, reason)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Tau(value, (float(low), float(high)), *sizes, "")
