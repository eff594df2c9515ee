"""Draw every figure that the data allow, or an overview of a large table.

Each section has bars, cost, ranks and sweeps; the table as a whole has ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmark.analysis.leaderboard import Summary
from benchmark.report.figures import style
from benchmark.report.figures.bars import draw_bars
from benchmark.report.figures.cost import draw_cost
from benchmark.report.figures.curves import Panel, draw_panels
from benchmark.report.figures.heatmap import draw_heatmap
from benchmark.report.figures.ranks import draw_ranks
from benchmark.report.figures.sweeps import FEWEST_VALUES, by_ratio, sweeps
from benchmark.report.sections import Column, Row, Section, TableCell

# A report draws up to this many cells one by one, unless the user asks for all: more cells take too
# long, and nobody could read them.
FULL = 300
SECONDS = 0.045  # to draw one cell in all figures, on a slow core
DEFENSES, COLUMNS, RANKED = 12, 24, 30  # the most that an overview shows


def figures(
    summary: Summary, sections: Sequence[Section]
) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Draw every figure that the data allow.

    The figures are ``bars``, ``cost``, ``ranks`` and ``sweep`` for the first section, ``bars-2``
    and so on for further ones; ``ratios`` for the first victim and protocol with several poison
    ratios, ``ratios-2`` for the next.

    Returns:
        name -> ``{"png": ..., "pdf": ...}``, and which figures were left out, with the reasons.
    """
    drawn: dict[str, dict[str, bytes]] = {}
    left_out: list[str] = []
    with rc_context(style.STYLE):
        swept = sweeps(summary)
        for index, section in enumerate(sections):
            number = f"-{index + 1}" if index else ""
            made: dict[str, Figure | str] = {
                "bars": draw_bars(section),
                "cost": section.no_claim or draw_cost(section),
                "ranks": section.no_claim or draw_ranks(section),
                "sweep": _sweep(section, swept[index]),
            }
            for name, figure in made.items():
                if isinstance(figure, Figure):
                    drawn[name + number] = style.files(figure)
                else:
                    left_out.append(f"{name}{number}: {figure}")
        for index, (title, panels, anchors, shown) in enumerate(by_ratio(summary)):
            figure = draw_panels(title, panels, "poison ratio", anchors, points=True, levels=shown)
            drawn[f"ratios-{index + 1}" if index else "ratios"] = style.files(figure)
        if "ratios" not in drawn:
            left_out.append("ratios: no defense has results at several poison ratios")
    return drawn, left_out


def _sweep(section: Section, panels: Sequence[Panel]) -> Figure | str:
    if not panels:
        return f"no defense has {FEWEST_VALUES} values of one parameter with all others equal"
    return draw_panels(
        section.title, panels, "value of the parameter", points=True, levels=section.levels
    )


def overview(
    table_cells: int, sections: Sequence[Section]
) -> tuple[dict[str, dict[str, bytes]], str]:
    """Draw an overview of a table that is too large to draw every cell.

    For the first group it has a heat map, which shows numbers only for few cells, bars of the best
    defenses' means, ``cost`` and ``ranks``. The title of each figure says how much of the group it
    shows. There are no PDF files, since embedding fonts takes longer than all the rest.

    Returns:
        name -> ``{"png": ...}``, and a sentence that says what is missing.
    """
    section, best = sections[0], _best(sections[0])
    with rc_context(style.STYLE):
        made: dict[str, Figure | str] = {
            "heatmap": draw_heatmap(best, numbers=len(best.rows) * len(best.columns) <= 100),
            "bars": draw_bars(_means(best)),
            "cost": section.no_claim or draw_cost(section),
            "ranks": section.no_claim or draw_ranks(section, RANKED),
        }
        drawn = {
            name: style.files(figure, pdf=False)
            for name, figure in made.items()
            if isinstance(figure, Figure)
        }
    groups = f" of the first of {len(sections)} groups" if len(sections) > 1 else ""
    return drawn, (
        f"{table_cells:,} cells are too many to draw one by one: there is an overview{groups}, "
        "without curves over epochs, ratios or parameters and without PDF files. report --figures "
        f"draws everything, in about {max(1, round(table_cells * SECONDS / 60))} min"
    )


def _best(section: Section) -> Section:
    """The section with only its first defenses, the undefended one included, and first columns."""
    rows = sorted(section.rows, key=lambda row: not row.is_undefended)[:DEFENSES]
    boards = [
        replace(board, rows=tuple(row for row in board.rows if row in rows))
        for board in section.boards
    ]
    part = replace(section, boards=tuple(board for board in boards if board.rows))
    attacks = sum(not column.is_clean for column in section.columns)
    shown_attacks = attacks - len(section.columns) + COLUMNS
    is_part = {
        f"{len(rows)} of {len(section.rows)} defenses": len(rows) < len(section.rows),
        f"{shown_attacks} of {attacks} attacks": len(section.columns) > COLUMNS,
    }
    cut = tuple(
        replace(board, rows=tuple(replace(row, cells=row.cells[:COLUMNS]) for row in board.rows))
        for board in part.boards
    )
    return replace(
        part,
        boards=cut,
        columns=section.columns[:COLUMNS],
        shown=", ".join(text for text, applies in is_part.items() if applies),
    )


def _means(section: Section) -> Section:
    """The section with the mean over attacks in place of the attacks."""
    clean = [index for index, column in enumerate(section.columns) if column.is_clean]
    over = Column("mean over attacks", False)

    def cells(row: Row) -> tuple[TableCell, ...]:
        n, doubts = int(math.isfinite(row.mean)), row.doubts.get("mean", ())
        return TableCell(over.attack, row.mean, row.std, n, 0, doubts), *(
            row.cells[index] for index in clean
        )

    boards = tuple(
        replace(board, rows=tuple(replace(row, cells=cells(row)) for row in board.rows))
        for board in section.boards
    )
    return replace(
        section, boards=boards, columns=(over, *(section.columns[index] for index in clean))
    )
