"""Draw lines in panels: accuracy over epochs, over poison ratios, over a parameter."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from benchmark.report.figures import style
from benchmark.report.figures.style import INK, PALETTE, STYLE, fitting, frame
from benchmark.report.sections import NO_LEVELS, Section

DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))


def curves(section: Section) -> dict[str, bytes]:
    """Draw test accuracy over epochs, one panel an attack, one line a defense.

    The last accuracy in % stands at the end of each line. With several seeds the line is their mean
    and the band one standard deviation.

    Returns:
        ``{"png": ..., "pdf": ...}``; empty if no record holds a curve.
    """
    if not section.curves:
        return {}
    with rc_context(STYLE):
        return style.files(draw_curves(section))


@dataclass(frozen=True)
class Line:
    """A line of a panel: means in % over ``x``, with standard deviations.

    NaN is a gap; at least one mean is finite.
    """

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


def draw_curves(section: Section) -> Figure:
    """The figure of ``curves``."""
    panels = []
    for column in section.columns:
        names = [row.defense for row in section.rows]
        seeds = {name: section.curves.get((name, column.attack), []) for name in names}
        lines = [_over_seeds(name, seeds[name]) for name in names if seeds[name]]
        if lines:
            panels.append(Panel(column.title, lines))
    anchors = {row.defense for row in section.rows if row.is_undefended}
    return draw_panels(section.title, panels, "epoch", anchors, levels=section.levels)


def _over_seeds(name: str, seeds: Sequence[Sequence[float]]) -> Line:
    """The mean of a cell's curves, and their spread if there are several."""
    values = np.full((len(seeds), max(map(len, seeds))), np.nan)
    for line, seed in zip(values, seeds, strict=True):
        line[: len(seed)] = seed
    std = np.full(values.shape[1], np.nan)
    if len(seeds) > 1:
        std = 100 * np.nanstd(values, axis=0, ddof=1)
    epochs = range(1, values.shape[1] + 1)
    return Line(name, epochs, list(100 * np.nanmean(values, axis=0)), list(std))


def draw_panels(
    title: str,
    panels: Sequence[Panel],
    xlabel: str,
    anchors: Collection[str] = (),
    points: bool = False,
    levels: Mapping[str, float] = NO_LEVELS,
) -> Figure:
    """Draw panels, three abreast, with one y axis from 0 to 100 %.

    Each line has a band of one standard deviation and its name at its end. Lines of one name look
    the same in all panels; the lines of ``anchors`` are dotted and black.

    Args:
        title: heading of the figure.
        panels: at least one.
        xlabel: label of the x axes.
        anchors: names of the undefended lines.
        points: whether to mark the values; without it the x axis counts epochs.
        levels: accuracies to draw as lines across all panels, see ``sections.levels``.
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
        style.draw_levels(axes, levels)
        ends = []
        for line in panel.lines:
            _draw_line(axes, line, styles[line.name], points)
            last = next(value for value in reversed(line.mean) if math.isfinite(value))
            ends.append((last, labels[line.name], styles[line.name][0]))
        label_ends(axes, ends, 100 * 0.125 / panel_h, panel_w)
    style.name_levels(figure, levels)
    return figure


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
    """Write each line's name and last value beside its end, joined by a thin line.

    Names move up or down so that no two overlap.
    """
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
