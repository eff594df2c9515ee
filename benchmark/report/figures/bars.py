"""Draw bars: for each attack, the accuracy of every defense."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from benchmark.report.figures import style
from benchmark.report.figures.style import INK, MUTED, PALETTE, RULE, short
from benchmark.report.sections import Section, TableCell

BAR = 0.19  # inches


def draw_bars(section: Section) -> Figure:
    """Draw a panel an attack, with a bar a defense in the order of the leaderboard.

    A bar over several seeds shows one standard deviation. A ``!`` marks a number in doubt.
    """
    across = min(3, len(section.columns))
    down = math.ceil(len(section.columns) / across)
    panel_w, panel_h = 2.5, BAR * len(section.rows) + 0.05
    gap_x, gap_y, head, foot = 0.2, 0.42, 0.66, 0.52
    names = [short(row.name, 28) + (" †" if row.needs else "") for row in section.rows]
    left = 0.2 + 0.064 * max(map(len, names))
    width = left + across * panel_w + (across - 1) * gap_x + 0.15
    height = head + down * panel_h + (down - 1) * gap_y + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        style.fitting(section.title, width),
        fontsize=9.5,
        fontweight="bold",
        va="center",
    )
    for index, column in enumerate(section.columns):
        x = left + index % across * (panel_w + gap_x)
        y = height - head - (index // across) * (panel_h + gap_y) - panel_h
        axes = figure.add_axes((x / width, y / height, panel_w / width, panel_h / height))
        _frame_bars(
            axes,
            short(column.title, 34),
            names if index % across == 0 else [""] * len(names),
            index + across >= len(section.columns),
        )
        style.draw_levels(axes, section.levels, upright=True)
        _draw_bars(
            axes,
            [(row.cells[index], INK if row.is_undefended else PALETTE[0]) for row in section.rows],
        )
    style.name_levels(figure, section.levels)
    cells = [cell for row in section.rows for cell in row.cells if cell.n]
    signs = {
        "* some seeds failed": any(cell.failed for cell in cells),
        "! in doubt": any(cell.doubts for cell in cells),
    }
    if notes := [sign for sign, shown in signs.items() if shown]:
        figure.text(
            1 - 0.12 / width,
            0.06 / height,
            ", ".join(notes),
            fontsize=7,
            color=MUTED,
            ha="right",
        )
    return figure


def _frame_bars(axes: Axes, title: str, names: Sequence[str], last: bool) -> None:
    axes.set_title(title, fontsize=8.5, loc="left", pad=4, fontweight="bold")
    axes.set_xlim(0, 132)  # room for the number behind a bar of 100 %
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7, labelcolor=MUTED, labelbottom=last)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color("#9aa2ac")
    if last:
        axes.set_xlabel("test accuracy, %", fontsize=7.5, color=MUTED, x=0.38)


def _draw_bars(axes: Axes, bars: Sequence[tuple[TableCell, str]]) -> None:
    """Draw a bar a cell, from top to bottom, each in its colour."""
    finished = [(place, cell, colour) for place, (cell, colour) in enumerate(bars) if cell.n]
    places = [place for place, _, _ in finished]
    values = [100 * cell.mean for _, cell, _ in finished]
    spreads = [0.0 if math.isnan(cell.std) else 100 * cell.std for _, cell, _ in finished]
    axes.barh(places, values, height=0.66, color=[colour for _, _, colour in finished], alpha=0.85)
    for (place, cell, _), value, spread in zip(finished, values, spreads, strict=True):
        if spread:  # with one seed, a cap without length would claim that there is no spread
            axes.errorbar(
                value,
                place,
                xerr=spread,
                fmt="none",
                ecolor="#8b949e",
                elinewidth=1.1,
                capsize=2,
                capthick=1.1,
            )
        axes.text(
            value + spread + 2,
            place,
            cell.marked + ("*" if cell.failed else ""),
            va="center",
            fontsize=7,
            color=INK,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
    for place, (cell, _) in enumerate(bars):
        if not cell.n:
            axes.text(
                1.5,
                place,
                cell.text,
                va="center",
                fontsize=7,
                color="#a1232b" if cell.failed else MUTED,
            )
