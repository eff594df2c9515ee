"""The report's further figures, each drawn only where its data are: bars, cost, ranks for one section; ratios and sweep for the table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.statistics.ranks import RankTest, rank_test
from benchmark.analysis.table import FAMILY, GROUP
from benchmark.report import plots
from benchmark.report.plots import INK, MUTED, PALETTE, RULE, Line, Panel
from benchmark.report.sections import Cell, Column, Row, Section, p_value
from benchmark.report.svg import pareto

FEWEST_VALUES = 3  # of a swept parameter: two make no curve
FULL = 300  # cells that are drawn one by one without being asked to; more take too long for a report, and nobody could read them
SECONDS = 0.045  # to draw one cell in all figures, on a slow core
DEFENSES, COLUMNS, RANKED = 12, 24, 30  # the most that an overview shows
BAR = 0.19  # inches


def figures(
    summary: Summary, sections: Sequence[Section]
) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Name -> ``{"png": ..., "pdf": ...}``, and what was left out, with the reason.

    Names: ``bars``, ``cost``, ``ranks``, ``sweep`` for the first section, ``bars-2`` and so on for further ones; ``ratios`` for the
    first victim and protocol with several poison ratios, ``ratios-2`` for the next.
    """
    drawn: dict[str, dict[str, bytes]] = {}
    left_out: list[str] = []
    with rc_context(plots.STYLE):
        swept = sweeps(summary)
        for index, section in enumerate(sections):
            number = f"-{index + 1}" if index else ""
            made: dict[str, Figure | str] = {
                "bars": draw_bars(section),
                "cost": draw_cost(section),
                "ranks": draw_ranks(section),
                "sweep": plots.draw_panels(
                    section.title, swept[index], "value of the parameter", points=True
                )
                if swept[index]
                else f"no defense has {FEWEST_VALUES} values of one parameter with all others equal",
            }
            for name, figure in made.items():
                if isinstance(figure, Figure):
                    drawn[name + number] = plots.files(figure)
                else:
                    left_out.append(f"{name}{number}: {figure}")
        for index, (title, panels, anchors) in enumerate(by_ratio(summary)):
            figure = plots.draw_panels(title, panels, "poison ratio", anchors, points=True)
            drawn[f"ratios-{index + 1}" if index else "ratios"] = plots.files(figure)
        if "ratios" not in drawn:
            left_out.append("ratios: no defense has results at several poison ratios")
    return drawn, left_out


def overview(
    table_cells: int, sections: Sequence[Section]
) -> tuple[dict[str, dict[str, bytes]], str]:
    """Figures of a table that is too large to draw every cell: name -> ``{"png": ...}``, and a sentence that says what is not there.

    For the first group: a heat map without numbers and bars of the best defenses' means, ``cost`` and ``ranks``. Each says in its title
    how much of the group it shows. No PDF, since embedding fonts takes longer than all the rest.
    """
    section, best = sections[0], _best(sections[0])
    with rc_context(plots.STYLE):
        made: dict[str, Figure | str] = {
            "heatmap": plots.draw_heatmap(best, numbers=len(best.rows) * len(best.columns) <= 100),
            "bars": draw_bars(_means(best)),
            "cost": draw_cost(section),
            "ranks": draw_ranks(section, RANKED),
        }
        drawn = {
            name: plots.files(figure, pdf=False)
            for name, figure in made.items()
            if isinstance(figure, Figure)
        }
    groups = f" of the first of {len(sections)} groups" if len(sections) > 1 else ""
    return drawn, (
        f"{table_cells:,} cells are too many to draw one by one: there is an overview{groups}, without curves over epochs, ratios or "
        "parameters and without PDF files. "
        f"report --figures draws everything, in about {max(1, round(table_cells * SECONDS / 60))} min"
    )


def _best(section: Section) -> Section:
    """The section's first defenses, the undefended one among them, and its first columns."""
    rows = sorted(section.rows, key=lambda row: not row.is_undefended)[:DEFENSES]
    boards = [
        replace(board, rows=tuple(row for row in board.rows if row in rows))
        for board in section.boards
    ]
    part = replace(section, boards=tuple(board for board in boards if board.rows))
    attacks = sum(not column.is_clean for column in section.columns)
    left = {
        f"{len(rows)} of {len(section.rows)} defenses": len(rows) < len(section.rows),
        f"{attacks - len(section.columns) + COLUMNS} of {attacks} attacks": len(section.columns)
        > COLUMNS,
    }
    cut = tuple(
        replace(board, rows=tuple(replace(row, cells=row.cells[:COLUMNS]) for row in board.rows))
        for board in part.boards
    )
    return replace(
        part,
        boards=cut,
        columns=section.columns[:COLUMNS],
        shown=", ".join(text for text, is_left in left.items() if is_left),
    )


def _means(section: Section) -> Section:
    """The same with the mean over attacks in place of the attacks."""
    clean = [index for index, column in enumerate(section.columns) if column.is_clean]
    over = Column("mean over attacks", False)

    def cells(row: Row) -> tuple[Cell, ...]:
        return Cell(over.attack, row.mean, row.std, int(math.isfinite(row.mean)), 0), *(
            row.cells[index] for index in clean
        )

    boards = tuple(
        replace(board, rows=tuple(replace(row, cells=cells(row)) for row in board.rows))
        for board in section.boards
    )
    return replace(
        section, boards=boards, columns=(over, *(section.columns[index] for index in clean))
    )


# --- bars ------------------------------------------------------------------------------------------------------------------


def draw_bars(section: Section) -> Figure:
    """A panel an attack, a bar a defense in the order of the leaderboard, with one standard deviation where there are several seeds."""
    across = min(3, len(section.columns))
    down = math.ceil(len(section.columns) / across)
    panel_w, panel_h, gap_x, gap_y, head, foot = (
        2.5,
        BAR * len(section.rows) + 0.05,
        0.2,
        0.42,
        0.66,
        0.42,
    )
    names = [_short(row.name, 28) + (" †" if row.needs else "") for row in section.rows]
    left = 0.2 + 0.064 * max(map(len, names))
    width = left + across * panel_w + (across - 1) * gap_x + 0.15
    height = head + down * panel_h + (down - 1) * gap_y + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        plots.fitting(section.title, width),
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
            _short(column.title, 34),
            names if index % across == 0 else [""] * len(names),
            index + across >= len(section.columns),
        )
        _draw_bars(
            axes,
            [(row.cells[index], INK if row.is_undefended else PALETTE[0]) for row in section.rows],
        )
    if any(cell.n and cell.failed for row in section.rows for cell in row.cells):
        figure.text(
            1 - 0.12 / width,
            0.1 / height,
            "* some seeds failed",
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


def _draw_bars(axes: Axes, bars: Sequence[tuple[Cell, str]]) -> None:
    """A bar a cell, from top to bottom, in its colour."""
    there = [(place, cell, colour) for place, (cell, colour) in enumerate(bars) if cell.n]
    places, values = [place for place, _, _ in there], [100 * cell.mean for _, cell, _ in there]
    spreads = [0.0 if math.isnan(cell.std) else 100 * cell.std for _, cell, _ in there]
    axes.barh(places, values, height=0.66, color=[colour for _, _, colour in there], alpha=0.85)
    for (place, cell, _), value, spread in zip(there, values, spreads, strict=True):
        if spread:  # a cap at the end of a bar of one seed would say that there is no spread
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
            cell.text + ("*" if cell.failed else ""),
            va="center",
            fontsize=7,
            color=INK,
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


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


# --- cost ------------------------------------------------------------------------------------------------------------------


def draw_cost(section: Section) -> Figure | str:
    """Mean accuracy over attacks against cost. The line joins the defenses that no other beats in both, those with privileges apart."""
    rows = [row for row in section.rows if math.isfinite(row.mean) and row.cost > 0]
    if len(rows) < 2:
        return f"{len(rows)} defenses with a mean over attacks and a cost, at least 2 are needed"
    width, height = 5.4, 3.6
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        plots.fitting(section.title, width),
        fontsize=9.5,
        fontweight="bold",
        va="center",
    )
    axes = figure.add_axes(
        (0.5 / width, 0.5 / height, (width - 0.7) / width, (height - 1.0) / height)
    )
    plots.frame(axes, "", "cost: purifying and training, in undefended trainings", True)
    axes.set_ylabel("mean test accuracy over attacks, %", fontsize=7.5, color=MUTED)
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
    told = {
        "line: no other is both cheaper and better": True,
        "hollow, †: needs clean data or weights": any(row.needs for row in rows),
        f"no room for {unnamed} of {len(rows)} names": bool(unnamed),
    }
    notes = [note for note, is_told in told.items() if is_told]
    axes.text(
        1, 1.02, "; ".join(notes), transform=axes.transAxes, ha="right", fontsize=7, color=MUTED
    )
    return figure


def _name_points(axes: Axes, rows: Sequence[Row], width: float, height: float) -> int:
    """Writes each name beside its point, at the first of ten places where it covers no point and no other name.

    Returns:
        How many found no place, the best being served first.
    """
    unnamed = 0
    first, last = (math.log(limit) for limit in axes.get_xlim())
    points = {
        row.defense: (width * (math.log(row.cost) - first) / (last - first), height * row.mean)
        for row in rows
    }  # inches
    taken = [(x - 0.05, y - 0.05, x + 0.05, y + 0.05) for x, y in points.values()]
    for row in sorted(rows, key=lambda row: -row.mean):
        x, y = points[row.defense]
        name = _short(row.name, 24) + (" †" if row.needs else "")
        long, tall = 0.065 * len(name), 0.13
        places = [
            (x + dx, y + dy) for dy in (0, 0.14, -0.14, 0.28, -0.28) for dx in (0.09, -0.09 - long)
        ]
        boxes = [
            (left, middle - tall / 2, left + long, middle + tall / 2) for left, middle in places
        ]
        free = [
            not any(_overlap(box, other) for other in taken) and box[0] > 0 and box[2] < width
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


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- ranks -----------------------------------------------------------------------------------------------------------------


def draw_ranks(section: Section, most: int | None = None) -> Figure | str:
    """The critical-difference diagram (Demsar 2006) of the ranked defenses; attacks are the blocks. Or why there is none.

    The ranks are among all defenses, also where only the ``most`` best are drawn.
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
    """Mean ranks on a line, the best to the left; a bar joins what is not told apart: ``alike`` has the first and last name of each."""
    k, half = len(test.names), math.ceil(len(test.names) / 2)
    worst = max(
        k, math.ceil(test.ranks[-1])
    )  # where not all are drawn, a mean rank may be beyond their number
    label = 0.7 + 0.066 * max(len(_short(name, 28)) for name in test.names)
    scale, step, bar = max(3.0, 0.5 * (worst - 1)), 0.2, 0.09
    top = 1.0
    width = scale + 2 * label
    first_name = top + 0.22 + bar * (len(alike) + 1)
    height = first_name + step * (half - 1) + 0.55
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(0.12, 0.2, plots.fitting(title, width), fontsize=9.5, fontweight="bold", va="center")

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
        axes.text(end + (-0.05 if left else 0.05), y, f"{_short(name, 28)}  {rank:.2f}" if left else f"{rank:.2f}  {_short(name, 28)}",
                  ha="right" if left else "left", va="center", fontsize=7.5)  # fmt: skip
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


# --- lines over a parameter ------------------------------------------------------------------------------------------------


def by_ratio(summary: Summary) -> Iterator[tuple[str, list[Panel], set[str]]]:
    """(title, a panel an attack, undefended names) for each data set, victim, protocol and preset with several poison ratios.

    Ratio 0 is clean data.
    """
    for (dataset, victim, protocol, preset), cells in summary.cells.groupby([*FAMILY, "preset"]):
        attacked, clean = (
            cells[~cells["is_clean"]],
            cells[cells["is_clean"]].drop_duplicates("defense"),
        )
        ratios = sorted(attacked["ratio"].unique())
        panels = []
        xs = [0.0, *ratios] if len(clean) else ratios
        for attack, part in attacked.groupby("attack"):
            part = part[part.groupby("defense")["mean"].transform("count") > 1]
            found: dict[tuple[str, float], Any] = {
                (name, ratio): row
                for rows in (clean.assign(ratio=0.0), part)
                for name, ratio, row in zip(
                    rows["defense"], rows["ratio"], rows.itertuples(), strict=True
                )
            }
            if lines := _lines(sorted(set(part["defense"])), xs, found):
                panels.append(Panel(str(attack), lines))
        if panels:
            title = f"{dataset} · {victim} · {protocol}" + (f" · preset {preset}" if preset else "")
            yield title, panels, set(cells.loc[cells["is_undefended"], "defense"])


def sweeps(summary: Summary) -> list[list[Panel]]:
    """For each group of the table, in its order, a panel for each numeric parameter of a defense that was varied alone.

    That is: the same defense with ``FEWEST_VALUES`` or more values of it, all other parameters equal. Lines are attacks.
    """
    cells = dict(iter(summary.cells.groupby(GROUP)))
    panels: list[list[Panel]] = []
    for group, runs in summary.runs.groupby(GROUP):
        at = {(row.attack, row.defense): row for row in cells[group].itertuples()}
        clean = set(cells[group].loc[cells[group]["is_clean"], "attack"])
        attacks = sorted(set(cells[group]["attack"]), key=lambda name: (name not in clean, name))
        specs = dict(zip(runs["defense"], runs["defense_spec"], strict=True))
        panels.append([])
        for title, labels in _varied(specs):
            values = sorted(labels)
            found = {
                (attack, value): at[attack, labels[value]]
                for attack in attacks
                for value in values
                if (attack, labels[value]) in at
            }
            if lines := _lines(attacks, values, found):
                lines = [
                    replace(line, name="clean data") if line.name in clean else line
                    for line in lines
                ]
                panels[-1].append(
                    Panel(title, lines, log=values[0] > 0 and values[-1] / values[0] >= 8)
                )
    return panels


def _varied(specs: Mapping[str, str]) -> list[tuple[str, dict[float, str]]]:
    """(``dvae: width``, value -> label) for each parameter that alone tells three or more of the specs (label -> JSON) apart."""
    families: dict[tuple[str, str], dict[float, str]] = {}
    for label, text in specs.items():
        spec = json.loads(text)
        params = spec.get("params", {})
        for name, value in params.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                others = json.dumps(
                    {
                        **spec,
                        "params": {key: other for key, other in params.items() if key != name},
                    },
                    sort_keys=True,
                )
                families.setdefault((f"{spec['name']}: {name}", others), {})[float(value)] = label
    return sorted(
        (title, labels) for (title, _), labels in families.items() if len(labels) >= FEWEST_VALUES
    )


def _lines(
    names: Sequence[str], xs: Sequence[float], found: Mapping[tuple[str, float], Any]
) -> list[Line]:
    """A line a name with two or more numbers; ``found`` has rows of the grid by name and x."""
    lines = []
    for name in names:
        rows = [found.get((name, x)) for x in xs]
        mean = [math.nan if row is None else 100 * row.mean for row in rows]
        if sum(map(math.isfinite, mean)) > 1:
            lines.append(
                Line(name, xs, mean, [math.nan if row is None else 100 * row.std for row in rows])
            )
    return lines
