"""The report's two figures for one section: a heat map (attack x defense) and test accuracy over epochs.

matplotlib is imported here and nowhere else, and used through Figure objects: no pyplot, no global state, no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from benchmark.report.sections import Cell, Section, shade

DPI = 144
INK, MUTED, RULE = "#1b1f24", "#5f6873", "#d9dde2"
# Okabe and Ito's palette for any colour vision, without its yellow, which is too pale for a line on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f4e9c")
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.hinting": "none",  # at this size hinting makes some glyphs look bold
    "text.parse_math": False,  # a name may hold a dollar sign
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.6,
    "hatch.color": "#b4bac2",
}


def heatmap(section: Section, numbers: bool = True) -> dict[str, bytes]:
    """Accuracy of each defense against each attack, as ``{"png": ..., "pdf": ...}``.

    Rows stand in the order of the leaderboard, clean data and the mean apart from the attacks. The colour scale always spans
    0 to 100 %, so that figures of different runs can be laid side by side. Without ``numbers`` cells are colours alone, except the mean.
    """
    with rc_context(STYLE):
        return files(draw_heatmap(section, numbers))


def curves(section: Section) -> dict[str, bytes]:
    """Test accuracy over epochs, one panel an attack, one line a defense, as ``{"png": ..., "pdf": ...}``.

    Each line is labelled at its end with the last accuracy in %. With several seeds the line is their mean and the band one
    standard deviation. Empty if no record holds a curve.
    """
    if not section.curves:
        return {}
    with rc_context(STYLE):
        return files(_draw_curves(section))


def files(figure: Figure, pdf: bool = True) -> dict[str, bytes]:
    """The figure's bytes, without dates or program versions, so that the same table gives the same files."""
    written: dict[str, bytes] = {}
    without: dict[str, Any] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    for form in ("png", "pdf") if pdf else ("png",):
        content = io.BytesIO()
        figure.savefig(content, format=form, dpi=DPI, metadata=without[form])
        written[form] = content.getvalue()
    return written


# --- heat map: drawn in a frame whose unit is one inch, so that every cell and label has a known size -----------------------

CELL_W, CELL_H, GAP = 0.74, 0.34, 0.1


def draw_heatmap(section: Section, numbers: bool = True) -> Figure:
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
    """Where columns or rows start, in inches: a gap after clean data, or before each marked row."""
    places, at = [], 0.0
    for index in range(len(clean)):
        if index and (before[index] if before else clean[index - 1] and not clean[index]):
            at += GAP
        places.append(at)
        at += size
    return places


def _draw_cell(axes: Axes, x: float, y: float, width: float, cell: Cell, numbers: bool) -> None:
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


# --- curves ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of a panel: values in % over ``x`` with their standard deviations. NaN is a gap; one value at least is finite."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Lines with a common x axis, which is logarithmic if ``log``."""

    title: str
    lines: Sequence[Line]
    log: bool = False


def _draw_curves(section: Section) -> Figure:
    panels = []
    for column in section.columns:
        found = [
            (row, section.curves.get((row.defense, column.attack), [])) for row in section.rows
        ]
        lines = [_over_seeds(row.defense, seeds) for row, seeds in found if seeds]
        if lines:
            panels.append(Panel(column.title, lines))
    anchors = {row.defense for row in section.rows if row.is_undefended}
    return draw_panels(section.title, panels, "epoch", anchors)


def _over_seeds(name: str, seeds: Sequence[Sequence[float]]) -> Line:
    """The mean of a cell's curves, and their spread where there are several."""
    values = np.full((len(seeds), max(map(len, seeds))), np.nan)
    for line, seed in zip(values, seeds, strict=True):
        line[: len(seed)] = seed
    std = (
        100 * np.nanstd(values, axis=0, ddof=1)
        if len(seeds) > 1
        else np.full(values.shape[1], np.nan)
    )
    return Line(
        name, range(1, values.shape[1] + 1), list(100 * np.nanmean(values, axis=0)), list(std)
    )


def draw_panels(
    title: str,
    panels: Sequence[Panel],
    xlabel: str,
    anchors: Collection[str] = (),
    points: bool = False,
) -> Figure:
    """Panels three abreast, one y axis of 0 to 100 %; each line with a band of one standard deviation and its name at its end.

    Lines of one name look the same in all panels; those of ``anchors`` are dotted and black. ``points`` marks where values are.
    """
    names = sorted({line.name for panel in panels for line in panel.lines})
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    labels = {name: name if len(name) <= 24 else name[:23] + "…" for name in names}
    margin = 0.5 + 0.066 * max(len(label) for label in labels.values())
    panel_w, panel_h = 2.2, max(1.75, 0.125 * max(len(panel.lines) for panel in panels) + 0.2)
    left, gap_y, head, foot = 0.5, 0.42, 0.62, 0.5
    width = left + across * (panel_w + margin) + (across - 1) * 0.22
    height = head + down * panel_h + (down - 1) * gap_y + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        fitting(title, width),
        fontsize=9.5,
        fontweight="bold",
        va="center",
    )
    plain = [name for name in names if name not in anchors]
    styles = {
        name: (PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)], 1.4)
        for i, name in enumerate(plain)
    }
    styles |= dict.fromkeys(anchors, (INK, (0, (1, 1)), 1.6))
    for index, panel in enumerate(panels):
        x = left + index % across * (panel_w + margin + 0.22)
        y = height - head - (index // across) * (panel_h + gap_y) - panel_h
        axes = figure.add_axes((x / width, y / height, panel_w / width, panel_h / height))
        frame(
            axes, panel.title, xlabel if index + across >= len(panels) else "", index % across == 0
        )
        if panel.log:
            axes.set_xscale("log")
            axes.set_xticks(panel.lines[0].x, [f"{value:g}" for value in panel.lines[0].x])
            axes.xaxis.set_minor_locator(NullLocator())
        elif not points:  # epochs
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        ends = []
        for line in panel.lines:
            _draw_line(axes, line, styles[line.name], points)
            last = next(value for value in reversed(line.mean) if math.isfinite(value))
            ends.append((last, labels[line.name], styles[line.name][0]))
        label_ends(axes, ends, 100 * 0.125 / panel_h, panel_w)
    return figure


def fitting(title: str, width: float) -> str:
    """The title, its middle left out where it would be wider than a figure of ``width`` inches."""
    room = int(width * 11)  # letters of the title's size in an inch
    return (
        title
        if len(title) <= room
        else f"{title[: room // 3]} … {title[-(room - room // 3 - 3) :]}"
    )


def frame(axes: Axes, title: str, xlabel: str, first: bool) -> None:
    """A panel of accuracies in %; ``first`` has the labels of the y axis."""
    axes.set_title(title, fontsize=8.5, loc="left", pad=5, fontweight="bold")
    axes.set_ylim(0, 100)
    axes.margins(x=0)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=7, labelcolor=MUTED)
    axes.tick_params(labelleft=first)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#9aa2ac")
    if first:
        axes.set_ylabel("test accuracy, %", fontsize=7.5, color=MUTED)
    axes.set_xlabel(xlabel, fontsize=7.5, color=MUTED)


def _draw_line(axes: Axes, line: Line, style: tuple[str, Any, float], points: bool) -> None:
    colour, dash, thick = style
    mean, std = np.array(line.mean), np.array(line.std)
    marker = "o" if points or len(mean) == 1 else ""
    axes.plot(
        line.x,
        mean,
        color=colour,
        linestyle=dash,
        linewidth=thick,
        marker=marker,
        markersize=3,
        clip_on=False,
    )
    if np.isfinite(std).any():
        axes.fill_between(line.x, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, str, str]], apart: float, panel_w: float
) -> None:
    """Writes each line's name and last value beside its end, moved up or down so that no two overlap, with a thin leader."""
    ends = sorted(ends)
    heights: list[float] = []
    for value, _, _ in ends:
        heights.append(max(value, heights[-1] + apart) if heights else max(value, 0.0))
    ceiling = 100.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - apart
    transform = axes.get_yaxis_transform()  # x as a share of the panel, y in %
    near, far, text = (1 + inches / panel_w for inches in (0.02, 0.15, 0.19))
    for (value, name, colour), height in zip(ends, heights, strict=True):
        axes.plot(
            [near, far],
            [value, height],
            transform=transform,
            color=colour,
            linewidth=0.6,
            alpha=0.6,
            clip_on=False,
        )
        axes.text(
            text,
            height,
            f"{value:.0f}  {name}",
            transform=transform,
            fontsize=7,
            color=colour,
            va="center_baseline",
        )
