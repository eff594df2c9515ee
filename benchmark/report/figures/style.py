"""What all figures share: colours and fonts, their file formats, and the frame of a panel.

Only ``report/figures`` and ``report/history.py`` import matplotlib. They draw on Figure objects,
without pyplot, global state or a display.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.report.sections import UPPER

DPI = 144
INK, MUTED, RULE = "#1b1f24", "#5f6873", "#d9dde2"
# Okabe and Ito's palette for any colour vision, without its yellow, which is too pale for a line
# on white.
LEVELS = (("#a1232b", (0, (1, 1.6))), ("#8b949e", (0, (5, 2))))  # chance, and clean data
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f4e9c")
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


def files(figure: Figure, pdf: bool = True) -> dict[str, bytes]:
    """The content of the figure's files, by format.

    It holds no dates or program versions, so that the same table gives the same files.
    """
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


def fitting(title: str, width: float) -> str:
    """The title; its middle is left out if it is wider than a figure of ``width`` inches."""
    room = int(width * 11)  # letters of the title's size in an inch
    if len(title) <= room:
        return title
    return f"{title[: room // 3]} … {title[-(room - room // 3 - 3) :]}"


def frame(axes: Axes, title: str, xlabel: str, first: bool) -> None:
    """Draw the frame of a panel of accuracies in %; with ``first`` its y axis has labels."""
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


def draw_levels(axes: Axes, levels: Mapping[str, float], upright: bool = False) -> None:
    """Draw a line across a panel of accuracies in % at each of ``sections.levels``.

    ``upright`` lines are for panels whose x axis has the accuracies.
    """
    for name, share in levels.items():
        line = axes.axvline if upright else axes.axhline
        colour, dash = _level(name)
        line(100 * share, color=colour, linestyle=dash, linewidth=0.9, zorder=1.5)


def name_levels(figure: Figure, levels: Mapping[str, float]) -> None:
    """Name the lines of ``draw_levels`` at the foot of the figure, where 0.14 inches are free."""
    if not levels:
        return
    lines = []
    for name, share in levels.items():
        colour, dash = _level(name)
        label = f"{name}: {100 * share:.1f} %"
        lines.append(Line2D([], [], color=colour, linestyle=dash, linewidth=0.9, label=label))
    figure.legend(
        handles=lines,
        loc="lower left",
        bbox_to_anchor=(0.08 / figure.get_figwidth(), 0.02 / figure.get_figheight()),
        ncols=len(lines),
        fontsize=7,
        labelcolor=MUTED,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.2,
        columnspacing=1.4,
    )


def _level(name: str) -> tuple[str, Any]:
    return LEVELS[name == UPPER]


def short(name: str, length: int) -> str:
    """The name, with an ellipsis at its end if it is longer than ``length`` letters."""
    return name if len(name) <= length else name[: length - 1] + "…"
