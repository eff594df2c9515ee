"""Draw mean accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from benchmark.report.figures import style
from benchmark.report.figures.style import INK, MUTED, PALETTE, RULE, short
from benchmark.report.sections import Row, Section
from benchmark.report.svg import overlap, pareto


def draw_cost(section: Section) -> Figure | str:
    """Draw mean accuracy over attacks against cost, or return why that is not possible.

    The line joins the defenses without privileges that no other one beats in both.
    """
    rows = [row for row in section.rows if math.isfinite(row.mean) and row.cost > 0]
    if len(rows) < 2:
        return f"{len(rows)} defenses with a mean over attacks and a cost, at least 2 are needed"
    width, height = 5.4, 3.6
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        style.fitting(section.title, width),
        fontsize=9.5,
        fontweight="bold",
        va="center",
    )
    axes = figure.add_axes(
        (0.5 / width, 0.5 / height, (width - 0.7) / width, (height - 1.0) / height)
    )
    cost = f"cost: {section.clock} to purify and train, in undefended trainings"
    style.frame(axes, "", cost, True)
    axes.set_ylabel("mean test accuracy over attacks, %", fontsize=7.5, color=MUTED)
    style.draw_levels(axes, section.levels)
    style.name_levels(figure, section.levels)
    low, high = min(row.cost for row in rows), max(row.cost for row in rows)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.15, high * 1.7)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    front = pareto([row for row in rows if not row.needs])
    axes.step(
        [row.cost for row in front],
        [100 * row.mean for row in front],
        where="post",
        color=RULE,
        linewidth=1.6,
        zorder=1,
    )
    for row in rows:
        colour = INK if row.is_undefended else PALETTE[0] if row in front else MUTED
        spread = None if math.isnan(row.std) else 100 * row.std
        axes.errorbar(row.cost, 100 * row.mean, yerr=spread, color=colour, linewidth=1, capsize=2)
        axes.plot(
            row.cost,
            100 * row.mean,
            "o",
            markersize=5,
            color=colour,
            markerfacecolor="white" if row.needs else colour,
        )
    unnamed = _name_points(axes, rows, width - 0.7, height - 1.0)
    applies = {
        "line: no other is both cheaper and better": True,
        "hollow, †: needs clean data or weights": any(row.needs for row in rows),
        f"no room for {unnamed} of {len(rows)} names": bool(unnamed),
    }
    notes = [note for note, does_apply in applies.items() if does_apply]
    axes.text(
        1, 1.02, "; ".join(notes), transform=axes.transAxes, ha="right", fontsize=7, color=MUTED
    )
    return figure


def _name_points(axes: Axes, rows: Sequence[Row], width: float, height: float) -> int:
    """Write each name beside its point, at the first of ten places where it covers nothing.

    The best defenses choose first.

    Returns:
        How many names found no place.
    """
    unnamed = 0
    first, last = (math.log(limit) for limit in axes.get_xlim())
    points = {  # in inches
        row.defense: (width * (math.log(row.cost) - first) / (last - first), height * row.mean)
        for row in rows
    }
    taken = [(x - 0.05, y - 0.05, x + 0.05, y + 0.05) for x, y in points.values()]
    for row in sorted(rows, key=lambda row: -row.mean):
        x, y = points[row.defense]
        name = short(row.name, 24) + (" †" if row.needs else "")
        long, tall = 0.065 * len(name), 0.13
        places = [
            (x + dx, y + dy) for dy in (0, 0.14, -0.14, 0.28, -0.28) for dx in (0.09, -0.09 - long)
        ]
        boxes = [
            (left, middle - tall / 2, left + long, middle + tall / 2) for left, middle in places
        ]
        free = [
            not any(overlap(box, other) for other in taken) and box[0] > 0 and box[2] < width
            for box in boxes
        ]
        if True not in free:
            unnamed += 1
            continue
        box = boxes[free.index(True)]
        taken.append(box)
        axes.text(
            box[0] / width,
            (box[1] + tall / 2) / height,
            name,
            transform=axes.transAxes,
            fontsize=7,
            va="center",
        )
    return unnamed
