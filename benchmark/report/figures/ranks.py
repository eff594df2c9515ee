"""Draw the mean ranks of the defenses, and which of them differ significantly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from benchmark.analysis.statistics.ranks import RankTest, rank_test
from benchmark.report.figures import style
from benchmark.report.figures.style import INK, MUTED, PALETTE, short
from benchmark.report.numbers import p_value
from benchmark.report.sections import Section


def draw_ranks(section: Section, most: int | None = None) -> Figure | str:
    """Draw the critical-difference diagram (Demsar 2006), or return why that is not possible.

    It compares the ranked defenses, with attacks as blocks. If only the ``most`` best are drawn,
    their ranks are still those among all defenses.
    """
    attacks = [index for index, column in enumerate(section.columns) if not column.is_clean]
    rows = [row for row in section.boards[0].rows if not (row.is_undefended or row.needs)]
    scores = {
        row.defense: [row.cells[index].mean for index in attacks]
        for row in rows
        if row.covered == row.attacks
    }
    try:
        test = rank_test(scores)
    except ValueError as error:
        return str(error)
    if most is None or len(test.names) <= most:
        return _draw_test(section.title, test, test.alike)
    names = f" · best {most} of {len(test.names)}"
    alike = [(first, min(last, most - 1)) for first, last in test.alike if first < most - 1]
    return _draw_test(
        section.title + names,
        replace(test, names=test.names[:most], ranks=test.ranks[:most]),
        alike,
    )


def _draw_test(title: str, test: RankTest, alike: Sequence[tuple[int, int]]) -> Figure:
    """Draw mean ranks on a line, the best to the left.

    A bar joins names that do not differ significantly; ``alike`` holds the first and last name of
    each bar.
    """
    k, half = len(test.names), math.ceil(len(test.names) / 2)
    # if not all names are drawn, a mean rank may exceed their number
    worst = max(k, math.ceil(test.ranks[-1]))
    label = 0.7 + 0.066 * max(len(short(name, 28)) for name in test.names)
    scale, step, bar = max(3.0, 0.5 * (worst - 1)), 0.2, 0.09
    top = 1.0
    width = scale + 2 * label
    first_name = top + 0.22 + bar * (len(alike) + 1)
    height = first_name + step * (half - 1) + 0.55
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(0.12, 0.2, style.fitting(title, width), fontsize=9.5, fontweight="bold", va="center")

    def at(rank: float) -> float:
        return label + scale * (rank - 1) / (worst - 1)

    axes.plot([at(1), at(worst)], [top, top], color=INK, linewidth=1)
    for place in range(1, worst + 1):
        axes.plot([at(place)] * 2, [top - 0.06, top], color=INK, linewidth=1)
        axes.text(at(place), top - 0.1, str(place), ha="center", va="bottom", fontsize=7.5)
    for index, (name, rank) in enumerate(zip(test.names, test.ranks, strict=True)):
        left = index < half
        y = first_name + step * (index if left else k - 1 - index)
        end = label - 0.1 if left else label + scale + 0.1
        axes.plot([at(rank), at(rank), end], [top, y, y], color=MUTED, linewidth=0.8)
        text = f"{short(name, 28)}  {rank:.2f}" if left else f"{rank:.2f}  {short(name, 28)}"
        x, align = (end - 0.05, "right") if left else (end + 0.05, "left")
        axes.text(x, y, text, ha=align, va="center", fontsize=7.5)
    for line, (first, last) in enumerate(alike):
        y = top + 0.12 + bar * line
        axes.plot(
            [at(test.ranks[first]) - 0.04, at(test.ranks[last]) + 0.04],
            [y, y],
            color=PALETTE[1],
            linewidth=3,
            solid_capstyle="butt",
        )
    axes.plot(
        [at(1), at(1) + scale * test.critical / (worst - 1)],
        [0.62, 0.62],
        color=PALETTE[1],
        linewidth=1.5,
    )
    axes.text(
        at(1),
        0.54,
        f"critical difference {test.critical:.2f}",
        fontsize=7.5,
        color=PALETTE[1],
        va="bottom",
    )
    verdict = "they differ" if test.decided else "no difference shown"
    note = f"mean rank over {test.blocks} attacks, 1 is best; Friedman {p_value(test.p)}: {verdict}"
    for line, text in enumerate((note, "a bar joins what is not told apart (Nemenyi, 5 %)")):
        axes.text(0.12, height - 0.3 + 0.15 * line, text, fontsize=7, color=MUTED, va="center")
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure
