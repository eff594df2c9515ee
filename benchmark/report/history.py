"""Draw the history of each cell: accuracy by night, and cumulative sums that show a slow slide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmark.analysis.baseline import Night
from benchmark.analysis.cells import CellId
from benchmark.analysis.statistics.shifts import MIN_STD, cusum, spreads
from benchmark.report.figures.style import INK, MUTED, PALETTE, RULE, STYLE, files, fitting

LIMIT = 5.0  # of the cumulative sums, in standard errors; see shifts.cusum
SHOWN = 90  # nights
ACROSS, PANEL_W, LEVEL_H, SUMS_H = 3, 2.7, 1.0, 0.5  # panels a row, and their sizes in inches
LEFT, GAP_X, GAP_Y, HEAD, FOOT, LEGEND_LINE = 0.5, 0.45, 0.62, 0.72, 0.62, 0.16
NOW, BEFORE, UP, DOWN, BAD = PALETTE[0], "#9aa2ac", PALETTE[2], PALETTE[1], "#a1232b"
FARTHEST = 3 * LIMIT  # up to which sums are drawn; a larger sum is written as a number
DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.5))

# cell -> kinds of tonight's findings, and whether each matters; None stands for all cells together
Found = Mapping[CellId | None, Sequence[tuple[str, bool]]]


def history(
    accepted: Mapping[CellId, Sequence[float]],
    since: str,
    nights: Sequence[Night],
    title: str,
    found: Found | None = None,
) -> dict[str, bytes]:
    """Draw one panel a cell, as ``{"png": ..., "pdf": ...}``; empty if there is no night.

    The upper part of a panel shows the runs of each night (dots) and their mean (line), the
    accepted mean (dashed) and two standard deviations of a run about it (band). The lower part
    shows the upward and downward cumulative sums of the nights after the acceptance, with their
    limits; the title is red where a sum is beyond its limit. Nights up to the acceptance are grey.
    The last ``SHOWN`` nights are drawn; the sums count all nights. A legend explains the signs.

    Args:
        accepted: accuracies in [0, 1] of each accepted cell. Only these have a panel.
        since: date of the newest accepted record. Nights up to it are shown, but not summed.
        nights: in order of time; the last one is tonight.
        title: heading of the figure.
        found: tonight's findings. Those of a cell are written below its panel, whose last night
            gets a ring. Those of all cells together are written behind the title.
    """
    cells = sorted(accepted)
    if not cells or not nights:
        return {}
    later = [night.accuracies for night in nights if night.date > since]
    spread = spreads(
        {cell: [accepted[cell], *(accs.get(cell, ()) for accs in later)] for cell in cells}
    )
    down = math.ceil(len(cells) / ACROSS)
    across = min(ACROSS, len(cells))
    panel_h = LEVEL_H + SUMS_H
    width = LEFT + across * PANEL_W + (across - 1) * GAP_X + 0.2
    found = found or {}
    together = ", ".join(f"{kind} in all cells together" for kind, _ in found.get(None, ()))
    shown = [night.date > since for night in nights[-SHOWN:]]
    legend = _legend(not all(shown), any(shown), any(cell in found for cell in cells))
    head = HEAD + LEGEND_LINE * math.ceil(len(legend) / across)
    height = head + down * panel_h + (down - 1) * GAP_Y + FOOT
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        heading = fitting(f"{title}: {together}" if together else title, width)
        figure.text(
            0.12 / width, 1 - 0.2 / height, heading, fontsize=9.5, fontweight="bold", va="center"
        )
        figure.legend(
            handles=legend,
            ncols=across,
            loc="upper left",
            bbox_to_anchor=(0.06 / width, 1 - 0.3 / height),
            frameon=False,
            fontsize=7,
            labelcolor=INK,
            handlelength=2.2,
            borderpad=0.2,
            labelspacing=0.45,
            columnspacing=1.6,
        )
        caption = (
            "above: test accuracy by night, %; below: cumulative sums in standard errors; "
            f"last night {nights[-1].date}"
        )
        figure.text(
            0.12 / width,
            0.16 / height,
            fitting(caption, 1.5 * width),
            fontsize=7,
            color=MUTED,
            va="center",
        )
        for index, cell in enumerate(cells):
            x = LEFT + index % across * (PANEL_W + GAP_X)
            y = height - head - index // across * (panel_h + GAP_Y) - panel_h
            level = figure.add_axes(
                (x / width, (y + SUMS_H) / height, PANEL_W / width, LEVEL_H / height)
            )
            sums = figure.add_axes(
                (x / width, y / height, PANEL_W / width, (SUMS_H - 0.08) / height)
            )
            _draw(
                level,
                sums,
                cell,
                accepted[cell],
                since,
                nights,
                spread[cell].std if spread else MIN_STD,
            )
            _tell(level, sums, found.get(cell, ()), nights, cell)
        return files(figure)


def _legend(before: bool, after: bool, found: bool) -> list[Line2D | Patch]:
    """A legend of the signs that the figure has."""
    nights: Any = {"linewidth": 1.2, "marker": "o", "markersize": 3}
    ring: Any = {"linestyle": "", "marker": "o", "markersize": 6, "markerfacecolor": "none"}
    thin: Any = {"linewidth": 0.8}
    signs: list[tuple[str, Line2D | Patch, bool]] = [  # text, sign, whether the figure has it
        ("a night: mean of its runs, and the runs", Line2D([], [], color=NOW, **nights), after),
        (
            "nights before the acceptance: not summed",
            Line2D([], [], color=BEFORE, **nights),
            before,
        ),
        (
            "acceptance of the baseline",
            Line2D([], [], color=INK, linestyle=DOTTED, **thin),
            before and after,
        ),
        ("accepted mean", Line2D([], [], color=MUTED, linestyle=DASHED, **thin), True),
        ("± 2 standard deviations of a run", Patch(color=RULE, alpha=0.6, linewidth=0), True),
        ("cumulative sum upward", Line2D([], [], color=UP, linewidth=1.1), True),
        ("cumulative sum downward", Line2D([], [], color=DOWN, linewidth=1.1), True),
        (
            f"its limit, ±{LIMIT:g}; beyond it the title is red",
            Line2D([], [], color=MUTED, linewidth=0.6, linestyle=DOTTED),
            True,
        ),
        ("tonight, with the finding below", Line2D([], [], color=BAD, **ring), found),
    ]
    shown = [(text, sign) for text, sign, is_shown in signs if is_shown]
    for text, sign in shown:
        sign.set_label(text)
    return [sign for _, sign in shown]


def _draw(
    level: Axes,
    sums: Axes,
    cell: CellId,
    accepted: Sequence[float],
    since: str,
    nights: Sequence[Night],
    std: float,
) -> None:
    runs = [night.accuracies.get(cell, ()) for night in nights]
    later = [number for number, night in enumerate(nights) if night.date > since]
    ups, downs = (
        sides[1:] for sides in cusum([accepted, *(runs[number] for number in later)], std)
    )
    moved = bool(later) and max(ups[-1], -downs[-1]) > LIMIT
    first = max(len(nights) - SHOWN, 0)

    mean = 100 * fmean(accepted)
    level.axhspan(mean - 200 * std, mean + 200 * std, color=RULE, alpha=0.6, linewidth=0)
    level.axhline(mean, color=MUTED, linewidth=0.8, linestyle=DASHED)
    line = [100 * fmean(accs) if accs else math.nan for accs in runs]
    for colour, numbers in ((BEFORE, sorted({*range(len(nights))} - {*later})), (NOW, later)):
        shown = [number for number in numbers if number >= first]
        dots = [(number, 100 * acc) for number in shown for acc in runs[number]]
        level.plot(
            [x for x, _ in dots], [y for _, y in dots], ".", color=colour, markersize=2.5, alpha=0.6
        )
        level.plot(
            shown,
            [line[number] for number in shown],
            color=colour,
            linewidth=1.2,
            marker="o",
            markersize=2,
        )
    if later and first < later[0]:
        for axes in (level, sums):
            axes.axvline(later[0] - 0.5, color=INK, linewidth=0.8, linestyle=DOTTED)
    level.set_title(
        fitting(cell.name, 1.3 * PANEL_W),
        fontsize=8,
        loc="left",
        pad=4,
        fontweight="bold",
        color=BAD if moved else INK,
    )

    for values, colour in ((ups, UP), (downs, DOWN)):
        sums.plot(later, values, color=colour, linewidth=1.1, marker="o", markersize=1.5)
    for limit in (LIMIT, -LIMIT):
        sums.axhline(limit, color=MUTED, linewidth=0.6, linestyle=DOTTED)
    reach = min(
        max(LIMIT + 1, *ups, *(-value for value in downs)) if later else LIMIT + 1, FARTHEST
    )
    sums.set_ylim(-reach, reach)
    for last, colour in ((ups[-1], UP), (downs[-1], DOWN)) if later else ():
        if abs(last) > reach:  # the line has left the panel
            text = f"{last:+.0f}".replace("-", "−")
            sums.text(
                len(nights) - 0.6,
                math.copysign(0.72 * reach, last),
                text,
                fontsize=6.5,
                color=colour,
                ha="right",
                va="center",
            )
    sums.set_yticks([-LIMIT, LIMIT])
    for axes in (level, sums):
        axes.set_xlim(first - 0.5, max(len(nights) - 0.5, first + 4.5))
        axes.tick_params(length=0, labelsize=6.5, labelcolor=MUTED)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_xticks([])
    sums.axhline(0, color="#9aa2ac", linewidth=0.6)
    ends = [(first - 0.5, "left", nights[first])] + (
        [(len(nights) - 0.5, "right", nights[-1])] if first < len(nights) - 1 else []
    )
    for x, align, night in ends:
        sums.text(
            x,
            -0.08,
            night.date[:10],
            transform=sums.get_xaxis_transform(),
            fontsize=6.5,
            color=MUTED,
            ha=align,
            va="top",
        )


def _tell(
    level: Axes,
    sums: Axes,
    found: Sequence[tuple[str, bool]],
    nights: Sequence[Night],
    cell: CellId,
) -> None:
    """Name tonight's findings of a cell, and draw a ring around its last night."""
    if not found:
        return
    colour = BAD if any(matters for _, matters in found) else MUTED
    kinds = ", ".join(dict.fromkeys(kind for kind, _ in found))
    sums.text(
        0, -0.4, f"tonight: {kinds}", transform=sums.transAxes, fontsize=7, color=colour, va="top"
    )
    if tonight := nights[-1].accuracies.get(cell):
        level.plot(
            len(nights) - 1,
            100 * fmean(tonight),
            "o",
            markersize=6,
            markerfacecolor="none",
            color=colour,
            clip_on=False,
        )
