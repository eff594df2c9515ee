"""The history of each cell as a figure: accuracy by night, and below it the cumulative sums that show a slow slide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.baseline import Night
from benchmark.nights import Cell
from benchmark.report.plots import INK, MUTED, PALETTE, RULE, STYLE, files, fitting
from benchmark.shifts import MIN_STD, cusum, spreads

LIMIT = 5.0  # of the cumulative sums, in standard errors; see shifts.cusum
SHOWN = 90  # nights
ACROSS, PANEL_W, LEVEL_H, SUMS_H = 3, 2.7, 1.0, 0.5  # panels a row, and their sizes in inches
LEFT, GAP_X, GAP_Y, HEAD, FOOT = 0.5, 0.45, 0.62, 0.62, 0.62
UP, DOWN = PALETTE[2], PALETTE[1]


def history(accepted: Mapping[Cell, Sequence[float]], since: str, nights: Sequence[Night], title: str) -> dict[str, bytes]:
    """One panel a cell, as ``{"png": ..., "pdf": ...}``; empty if there is no night.

    Above: the runs of each night (dots) and their mean (line), the accepted mean (dashed) and two standard deviations of a run about it
    (band). Below: the upward and downward cumulative sums of the nights after the acceptance, with their limits; the title is
    red where one is beyond its limit. The last ``SHOWN`` nights are drawn; the sums count all.

    Args:
        accepted: accuracies in [0, 1] of each accepted cell. Only these have a panel.
        since: date of the newest accepted record. Nights up to it are shown, but summed is what came after.
        nights: in order of time.
    """
    cells = sorted(accepted)
    if not cells or not nights:
        return {}
    later = [night.accuracies for night in nights if night.date > since]
    spread = spreads({cell: [accepted[cell], *(accs.get(cell, ()) for accs in later)] for cell in cells})
    down = math.ceil(len(cells) / ACROSS)
    across = min(ACROSS, len(cells))
    panel_h = LEVEL_H + SUMS_H
    width = LEFT + across * PANEL_W + (across - 1) * GAP_X + 0.2
    height = HEAD + down * panel_h + (down - 1) * GAP_Y + FOOT
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        figure.text(0.12 / width, 1 - 0.2 / height, fitting(title, width), fontsize=9.5, fontweight="bold", va="center")
        caption = "above: test accuracy by night, %; below: cumulative sums in standard errors, limits ±5; last night"
        figure.text(0.12 / width, 0.16 / height, f"{caption} {nights[-1].date}", fontsize=7, color=MUTED, va="center")
        for index, cell in enumerate(cells):
            x = LEFT + index % across * (PANEL_W + GAP_X)
            y = height - HEAD - index // across * (panel_h + GAP_Y) - panel_h
            level = figure.add_axes((x / width, (y + SUMS_H) / height, PANEL_W / width, LEVEL_H / height))
            sums = figure.add_axes((x / width, y / height, PANEL_W / width, (SUMS_H - 0.08) / height))
            _draw(level, sums, cell, accepted[cell], since, nights, spread[cell].std if spread else MIN_STD)
        return files(figure)


def _draw(level: Axes, sums: Axes, cell: Cell, accepted: Sequence[float], since: str, nights: Sequence[Night], std: float) -> None:
    runs = [night.accuracies.get(cell, ()) for night in nights]
    later = [number for number, night in enumerate(nights) if night.date > since]
    ups, downs = (sides[1:] for sides in cusum([accepted, *(runs[number] for number in later)], std))
    moved = bool(later) and max(ups[-1], -downs[-1]) > LIMIT
    first = max(len(nights) - SHOWN, 0)

    mean = 100 * fmean(accepted)
    level.axhspan(mean - 200 * std, mean + 200 * std, color=RULE, alpha=0.6, linewidth=0)
    level.axhline(mean, color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
    for colour, numbers in ((PALETTE[0], later), (MUTED, sorted({*range(len(nights))} - {*later}))):
        dots = [(number, 100 * acc) for number in numbers if number >= first for acc in runs[number]]
        level.plot([x for x, _ in dots], [y for _, y in dots], ".", color=colour, markersize=2.5, alpha=0.6)
    line = [100 * fmean(accs) if accs else math.nan for accs in runs]
    level.plot(range(first, len(nights)), line[first:], color=PALETTE[0], linewidth=1.2, marker="o", markersize=2)
    level.set_title(fitting(cell.name, 1.3 * PANEL_W), fontsize=8, loc="left", pad=4, fontweight="bold", color="#a1232b" if moved else INK)

    for values, colour in ((ups, UP), (downs, DOWN)):
        sums.plot(later, values, color=colour, linewidth=1.1, marker="o", markersize=1.5)
    for limit in (LIMIT, -LIMIT):
        sums.axhline(limit, color=MUTED, linewidth=0.6, linestyle=(0, (1, 1.5)))
    reach = max(LIMIT + 1, *ups, *(-value for value in downs)) if later else LIMIT + 1
    sums.set_ylim(-reach, reach)
    sums.set_yticks([-LIMIT, LIMIT])
    for axes in (level, sums):
        axes.set_xlim(first - 0.5, max(len(nights) - 0.5, first + 4.5))
        axes.tick_params(length=0, labelsize=6.5, labelcolor=MUTED)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_xticks([])
    sums.axhline(0, color="#9aa2ac", linewidth=0.6)
    for x, align, night in ((0.0, "left", nights[first]), (1.0, "right", nights[-1])):
        sums.text(x, -0.08, night.date[:10], transform=sums.transAxes, fontsize=6.5, color=MUTED, ha=align, va="top")
