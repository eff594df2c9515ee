"""Draw the heat map of a section: the accuracy of each defense against each attack.

The unit of the frame is one inch, so that every cell and label has a known size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmark.report.figures import style
from benchmark.report.figures.style import INK, MUTED, STYLE, fitting
from benchmark.report.numbers import shade
from benchmark.report.sections import Section, TableCell


def heatmap(section: Section, numbers: bool = True) -> dict[str, bytes]:
    """Draw the accuracy of each defense against each attack, as ``{"png": ..., "pdf": ...}``.

    Rows are in the order of the leaderboard; clean data and the mean are separate from the attacks.
    The colour scale always spans 0 to 100 %, so that figures of different runs can be compared.
    Without ``numbers``, cells show only colours, except the mean.
    """
    with rc_context(STYLE):
        return style.files(draw_heatmap(section, numbers))


CELL_W, CELL_H, GAP = 0.74, 0.34, 0.1


def draw_heatmap(section: Section, numbers: bool = True) -> Figure:
    """The figure of ``heatmap``."""
    several = any(not math.isnan(cell.std) for row in section.rows for cell in row.cells)
    mean_w = 1.0 if several else CELL_W
    cell_w = mean_w if numbers else 0.4
    heads = [column.title for column in section.columns]
    rows = [(row.name + ("  †" if row.needs else ""), row) for row in section.rows]
    left = 0.25 + 0.077 * max(len(name) for name, _ in rows)
    slanted = max(len(head) for head in heads) > (11 if numbers else 4)
    top = 0.46 + (0.16 + 0.042 * max(len(head) for head in heads) if slanted else 0.22)
    place = _places([column.is_clean for column in section.columns], cell_w)
    right_edge = place[-1] + cell_w + GAP
    lines = _places(
        [False] * len(rows),
        CELL_H,
        before=[
            row.is_undefended or _first_with_needs(section, i) for i, (_, row) in enumerate(rows)
        ],
    )
    width = left + right_edge + mean_w + 0.25 + (0.35 if slanted else 0)
    height = top + lines[-1] + CELL_H + 0.72
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(
        0.15, 0.28, fitting(section.title, width), fontsize=9.5, fontweight="bold", va="center"
    )
    head_style = (
        {"rotation": 35, "rotation_mode": "anchor", "ha": "left"} if slanted else {"ha": "center"}
    )
    for x, head in zip([*place, right_edge], [*heads, "mean"], strict=True):
        column_w = mean_w if head == "mean" else cell_w
        at = left + x + (column_w / 2 - 0.08 if slanted else column_w / 2)
        axes.text(
            at,
            top - 0.08,
            head,
            va="baseline",
            fontweight="bold" if head == "mean" else "normal",
            **head_style,
        )
    for y, (name, row) in zip(lines, rows, strict=True):
        middle = top + y + CELL_H / 2
        axes.text(
            left - 0.1,
            middle,
            name,
            ha="right",
            va="center",
            color=MUTED if row.is_undefended else INK,
        )
        for x, cell in zip(place, row.cells, strict=True):
            _draw_cell(axes, left + x, top + y, cell_w, cell, numbers)
        axes.text(
            left + right_edge + mean_w / 2,
            middle,
            row.mean_text,
            ha="center",
            va="center",
            fontweight="bold",
            color=MUTED if row.is_undefended else INK,
        )
    _draw_scale(axes, left, height - 0.46, min(2.2, right_edge), any(row.needs for _, row in rows))
    axes.set(xlim=(0, width), ylim=(height, 0))  # last, since an image sets limits of its own
    return figure


def _first_with_needs(section: Section, index: int) -> bool:
    rows = section.rows
    return index > 0 and bool(rows[index].needs) and not rows[index - 1].needs


def _places(
    clean: Sequence[bool], size: float, before: Sequence[bool] | None = None
) -> list[float]:
    """Where columns or rows start, in inches.

    There is a gap after clean data or, with ``before``, before each row that it marks.
    """
    places, at = [], 0.0
    for index in range(len(clean)):
        if index and (before[index] if before else clean[index - 1] and not clean[index]):
            at += GAP
        places.append(at)
        at += size
    return places


def _draw_cell(
    axes: Axes, x: float, y: float, width: float, cell: TableCell, numbers: bool
) -> None:
    box = {"xy": (x, y), "width": width, "height": CELL_H, "edgecolor": "white", "linewidth": 1.2}
    if cell.colours is not None:
        background, ink = cell.colours
        axes.add_artist(Rectangle(**box, facecolor=background))  # type: ignore[arg-type]
        if numbers:
            axes.text(x + width / 2, y + CELL_H / 2, cell.text, ha="center", va="center", color=ink)
        return
    axes.add_artist(Rectangle(**box, facecolor="#eceef1"))  # type: ignore[arg-type]
    if cell.failed:
        axes.text(
            x + width / 2,
            y + CELL_H / 2,
            "failed" if numbers else "×",
            ha="center",
            va="center",
            color="#a1232b",
            style="italic",
        )
    else:
        axes.add_artist(Rectangle((x, y), width, CELL_H, fill=False, hatch="/////", linewidth=0))


def _draw_scale(axes: Axes, x: float, y: float, width: float, with_needs: bool) -> None:
    colours = [[int(shade(step / 99)[0][k : k + 2], 16) for k in (1, 3, 5)] for step in range(100)]
    strip = np.array([colours], dtype=np.uint8)  # (1, 100, RGB)
    axes.imshow(strip, extent=(x, x + width, y + 0.09, y), aspect="auto", interpolation="nearest")
    for share in (0.0, 0.5, 1.0):
        axes.text(
            x + width * share,
            y + 0.22,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color=MUTED,
        )
    axes.text(x + width + 0.14, y + 0.045, "test accuracy, %", va="center", fontsize=7, color=MUTED)
    if with_needs:
        axes.text(
            x + width + 0.14,
            y + 0.22,
            "†  needs clean data or weights",
            va="center",
            fontsize=7,
            color=MUTED,
        )
