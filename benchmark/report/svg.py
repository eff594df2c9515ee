"""Draw SVG for the page: the curve of a cell, and accuracy against cost.

The style sheet of the page sets the colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from benchmark.report.numbers import percent, times
from benchmark.report.sections import NO_LEVELS, UPPER, Row, Section

Score = Literal["mean", "worst"]
SCORES: dict[Score, str] = {
    "mean": "mean accuracy over attacks, %",
    "worst": "accuracy under the worst attack, %",
}

# In units of the drawing, which are pixels unless the page scales the drawing down.
CURVE_W, CURVE_H, LEFT, TOP, BOTTOM = 220, 96, 26, 6, 18
COST_W, COST_H, COST_LEFT, COST_RIGHT, COST_TOP, COST_BOTTOM = 640, 360, 44, 14, 12, 44
LETTER, LINE = 7.4, 15  # of a label: width and height


def curve(seeds: Sequence[Sequence[float]], levels: Mapping[str, float] = NO_LEVELS) -> Markup:
    """Draw test accuracy over epochs: the mean over seeds, and a band of one standard deviation.

    ``seeds`` holds one curve a seed: shares in [0, 1], one value an epoch. A curve may end early or
    hold NaN, as that of a diverged run does. The mean of an epoch is over the seeds that have a
    number there. Its spread is 0 if only one seed has one, and an epoch without a number is left
    out. ``levels`` are those of the section, drawn as lines.
    """
    epochs = max(map(len, seeds))
    values = np.full((len(seeds), epochs), np.nan)
    for line, seed in zip(values, seeds, strict=True):
        line[: len(seed)] = seed
    mean, spread = _mean_and_spread(np.where(np.isfinite(values), values, np.nan))
    right = CURVE_W - 4
    x = np.linspace(LEFT, right, epochs) if epochs > 1 else np.array([(LEFT + right) / 2])
    kept = ~np.isnan(mean)
    # plain Python numbers are formatted faster
    at, middle, around = (values[kept].tolist() for values in (x, mean, spread))
    places = list(zip(at, middle, strict=True))
    edge = [(a, m + s) for a, m, s in zip(at, middle, around, strict=True)]
    edge += [(a, m - s) for a, m, s in zip(at[::-1], middle[::-1], around[::-1], strict=True)]
    band = Markup("")
    if edge and len(seeds) > 1:
        band = Markup('<polygon class="band" points="{}"/>').format(_points(edge))
    if len(places) > 1:
        drawn = Markup('<polyline class="line" points="{}"/>').format(_points(places))
    else:
        dot = Markup('<circle class="dot" cx="{:.0f}" cy="{:.1f}" r="3"/>')
        drawn = Markup("").join(dot.format(x, _height(share)) for x, share in places)
    first, last = (
        "no number" if math.isnan(share) else f"{percent(share)} %" for share in (mean[0], mean[-1])
    )
    label = f"Test accuracy over {epochs} epochs: {first} after the first, {last} after the last"
    return Markup(
        '<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}{}<text '
        'class="tick" x="{}" y="{}">epoch 1</text>'
        '<text class="tick end" x="{}" y="{}">{}</text></svg>'
    ).format(
        *(CURVE_W, CURVE_H, label, _rules(), _levels(levels, LEFT, right, _height), band, drawn),
        *(LEFT, CURVE_H - 4, right, CURVE_H - 4, epochs if epochs > 1 else ""),
    )


def _mean_and_spread(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (n - 1) of each epoch of ``values`` (seed, epoch).

    NaN stands for no value, as in ``nanmean`` and ``nanstd``, whose warnings this avoids.
    """
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    mean = np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    squares = np.where(known, values - mean, 0.0) ** 2
    return mean, np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1))


@cache
def _rules() -> Markup:
    """The lines at 0, 50 and 100 %, which all curves share."""
    base = CURVE_H - BOTTOM
    return Markup("").join(
        Markup(
            '<path class="rule" d="M{} {}H{}"/><text class="tick end" x="{}" y="{}">{}</text>'
        ).format(LEFT, y, CURVE_W - 4, LEFT - 4, y + 3, share)
        for share in (0, 50, 100)
        for y in (base - (base - TOP) * share // 100,)
    )


def _levels(
    levels: Mapping[str, float], left: float, right: float, height: Callable[[float], float]
) -> Markup:
    """A line across the drawing for each of the levels, with its name at its right end."""
    return Markup("").join(
        Markup(
            '<path class="level{}" d="M{} {:.1f}H{}"/>'
            '<text class="tick end level-name" x="{}" y="{:.1f}">{}</text>'
        ).format(
            "" if name == UPPER else " chance",
            *(left, height(share), right, right, height(share) - 2),
            name.partition(",")[0],
        )
        for name, share in levels.items()
    )


def _height(share: float) -> float:
    base = CURVE_H - BOTTOM
    return base - (base - TOP) * min(max(share, 0.0), 1.0)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.0f},{_height(share):.1f}" for x, share in places)


@dataclass(frozen=True)
class Scatter:
    """A drawing of accuracy against cost.

    ``front`` holds the rows that no other row beats in both, cheapest first; ``left_out`` holds the
    rows without a number.
    """

    score: Score
    drawing: Markup
    front: tuple[Row, ...]
    left_out: tuple[Row, ...]


def scatter(section: Section, score: Score) -> Scatter | None:
    """Draw accuracy against cost; None if fewer than two rows have both numbers.

    Defenses with privileges are shown, but are never on the front.
    """
    rows = [row for row in section.rows if math.isfinite(getattr(row, score)) and row.cost > 0]
    if len(rows) < 2:
        return None
    front = pareto([row for row in rows if not row.needs], score)
    low, high = min(row.cost for row in rows) / 1.3, max(row.cost for row in rows) * 1.4
    right, base = COST_W - COST_RIGHT, COST_H - COST_BOTTOM

    def across(cost: float) -> float:
        return COST_LEFT + (right - COST_LEFT) * math.log(cost / low) / math.log(high / low)

    def up(share: float) -> float:
        return base - (base - COST_TOP) * share

    places = [(row, across(row.cost), up(getattr(row, score))) for row in rows]
    step = " ".join(
        f"{'H' if i else 'M'}{across(row.cost):.1f} {'V' if i else ''}{up(getattr(row, score)):.1f}"
        for i, row in enumerate(front)
    )
    parts = [
        *(
            Markup(
                '<path class="rule" d="M{} {:.1f}H{}"/><text class="tick end" x="{}" '
                'y="{:.1f}">{}</text>'
            ).format(COST_LEFT, up(share / 100), right, COST_LEFT - 6, up(share / 100) + 4, share)
            for share in (0, 25, 50, 75, 100)
        ),
        _levels(section.levels, COST_LEFT, right, up),
        *(
            Markup('<text class="tick middle" x="{:.1f}" y="{}">{:g}×</text>').format(
                across(cost), base + 18, cost
            )
            for cost in _ticks(low, high)
        ),
        Markup(
            '<text class="tick middle" x="{}" y="{}">cost: {} to purify and train, in undefended '
            "trainings</text>"
        ).format((COST_LEFT + right) / 2, COST_H - 6, section.clock),
        Markup('<path class="front" d="{}"/>').format(step),
        *(_point(row, x, y, row in front, score) for row, x, y in places),
        *_labels(places, front, right, [up(share) for share in section.levels.values()]),
    ]
    label = (
        f"Scatter of {SCORES[score]} against cost, {len(rows)} defenses; the front and the "
        "numbers stand below and in the ranking"
    )
    drawing = Markup(
        '<svg class="cost {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(score, COST_W, COST_H, label, Markup("").join(parts))
    return Scatter(
        score, drawing, tuple(front), tuple(row for row in section.rows if row not in rows)
    )


def pareto(rows: Sequence[Row], score: Score = "mean") -> list[Row]:
    """The rows that no other row dominates, cheapest first.

    A row dominates another if it is at least as cheap and as good, and better in one of the two.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.cost, -getattr(row, score))):
        value = getattr(row, score)
        if (
            not front
            or value > getattr(front[-1], score)
            or (value, row.cost) == (getattr(front[-1], score), front[-1].cost)
        ):
            front.append(row)
    return front


def _ticks(low: float, high: float) -> list[float]:
    """Round costs within the axis: 1, 2, 5, 10 and so on.

    If there are fewer than three of these, finer steps are used.
    """
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), (1, 1.1, 1.2, 1.3, 1.4)):
        ticks = [
            step * 10.0**power
            for power in range(-3, 7)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if len(ticks) > 2:
            break
    return ticks


def _point(row: Row, x: float, y: float, in_front: bool, score: Score) -> Markup:
    if row.is_undefended:
        kind = "reference"
    elif row.needs:
        kind = "needs"
    else:
        kind = "on-front" if in_front else "behind"
    label = f"{row.name}: {percent(getattr(row, score))} % at {times(row.cost)}" + (
        f", needs {row.needs}" if row.needs else ""
    )
    label += ", on the front" if in_front else ""
    if row.needs:
        shape = Markup('<path d="M{:.1f} {:.1f}l7 7l-7 7l-7-7z"/>').format(x, y - 7)
    else:
        shape = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y)
    return Markup(
        '<g class="point {}" data-defense="{}" data-needs="{}"><title>{}</title>{}</g>'
    ).format(kind, row.defense, row.needs, label, shape)


def _labels(
    places: Sequence[tuple[Row, float, float]],
    front: Sequence[Row],
    right: float,
    levels: Sequence[float],
) -> Iterator[Markup]:
    """Write names beside their points, where they cover no point and no other name.

    If there is room, they do not cover the line of the front either. Rows on the front choose their
    places first. At the right ends of the lines at ``levels`` stand their names.
    """
    corners = sorted((x, -y) for row, x, y in places if row in front)
    lines = [
        line
        for (x, y), (x2, y2) in pairwise(corners)
        for line in ((x, -y - 1, x2, -y + 1), (x2 - 1, -y2, x2 + 1, -y))
    ]
    taken = [(x - 6, y - 6, x + 6, y + 6) for _, x, y in places]
    taken += [(right - 10 * LETTER, y - LINE, right, y) for y in levels]
    for row, x, y in sorted(places, key=lambda place: place[0] not in front):
        name = row.name if len(row.name) <= 30 else f"{row.name[:18]}…{row.name[-11:]}"
        wide = LETTER * len(name)
        beside = (
            (x + 9, -8),
            (x - 9 - wide, -8),
            (x - wide / 2, -24),
            (x - wide / 2, 8),
            (x + 9, -20),
            (x + 9, 4),
            (x - 9 - wide, 4),
        )
        boxes = [(left, y + above, left + wide, y + above + LINE) for left, above in beside]
        free = [
            box
            for box in boxes
            if _inside(box, right) and not any(overlap(box, other) for other in taken)
        ]
        free.sort(key=lambda box: any(overlap(box, line) for line in lines))
        if free:
            taken.append(free[0])
            kind = "name on-front" if row in front else "name"
            yield Markup(
                '<text class="{}" data-defense="{}" data-needs="{}" x="{:.1f}" y="{:.1f}">{}</text>'
            ).format(kind, row.defense, row.needs, free[0][0], free[0][1] + 12, name)


def _inside(box: Sequence[float], right: float) -> bool:
    return (
        box[0] >= COST_LEFT
        and box[2] <= right + COST_RIGHT
        and box[1] >= 0
        and box[3] <= COST_H - COST_BOTTOM
    )


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a part of the plane."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
