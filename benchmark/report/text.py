"""The report as Markdown and CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmark.beside import Beside
from benchmark.report.counterparts import PUBLISHED, numbers, sources, where_of
from benchmark.report.view import HOW_TO_READ, Board, Section, environment, facts
from benchmark.results import CELL, grid, leaderboard

if TYPE_CHECKING:
    import pandas as pd


def markdown(
    table: pd.DataFrame, sections: Sequence[Section], title: str, context: Mapping[str, str], besides: Sequence[Beside] = ()
) -> str:
    """The whole report without its plots, as GitHub-flavoured Markdown."""
    from benchmark.report import typeset
    from benchmark.report.published import published_tables

    lines = [f"# {escaped(title)}", "", "Accuracies in %, price in points, cost in undefended trainings.", ""]
    for section in sections:
        lines += [f"## {escaped(section.title)}", "", escaped(section.summary), "", f"{section.seeds}.", ""]
        for board in section.boards:
            if len(section.boards) > 1:
                lines += [f"### {board.title}", ""]
            lines += [*_ranking(board), ""]
        lines += ["### Accuracy by attack", ""]
        cells = [[row.name, *(cell.text for cell in row.cells)] for row in section.rows]
        lines += [*_table(["defense", *(column.title for column in section.columns)], cells), ""]
        for one in published_tables([one for one in besides if where_of(one) == section.where]):
            lines += ["### Published numbers beside ours", "", typeset.markdown(one)]
        lines += [*(f"- {escaped(note)}" for note in section.notes), *([""] if section.notes else [])]
        if section.failures:
            lines += ["### Failed cells", "", *(f"- {escaped(item.where)}: {escaped(item.error)}" for item in section.failures), ""]
    lines += ["## How to read this", "", *(f"- **{term}**: {meaning}" for term, meaning in HOW_TO_READ), ""]
    lines += ["## Environment and command", ""]
    lines += [f"- {escaped(name)}: {escaped(value)}" for name, value in {**context, **facts(table), **environment(table)}.items()]
    return "\n".join(lines) + "\n"


def _ranking(board: Board) -> list[str]:
    columns = {
        "rank": [row.rank_text for row in board.rows],
        "defense": [row.name for row in board.rows],
        "mean over attacks": [row.mean_text for row in board.rows],
        "n": [str(row.n) for row in board.rows],
        "worst attack": [row.worst_text for row in board.rows],
        "clean data": [row.clean_text for row in board.rows],
        "price": [row.price_text for row in board.rows],
        "cost": [row.cost_text for row in board.rows],
        "coverage": [row.coverage_text for row in board.rows],
        "needs": [row.needs for row in board.rows],
    }
    if not any(row.needs for row in board.rows):
        del columns["needs"]
    return _table(list(columns), list(zip(*columns.values(), strict=True)))


def leaderboard_csv(table: pd.DataFrame) -> str:
    """``results.leaderboard`` as CSV: shares in [0, 1], price in points, empty where there is no value."""
    return leaderboard(table).to_csv(index=False, float_format="%.6f", lineterminator="\n")


def cells_csv(table: pd.DataFrame, besides: Sequence[Beside] = ()) -> str:
    """``results.grid`` as CSV: one row a cell, shares in [0, 1], seconds, empty where there is no value.

    Each source of published numbers adds its own mean and std, our difference in points, and what is not the same.
    """
    cells = grid(table)
    for source in sources(besides):
        pairs = [
            source.pairs.get((tuple(where), attack, defense)) for *where, attack, defense in zip(*(cells[c] for c in CELL), strict=True)
        ]
        for name, values in zip(PUBLISHED, zip(*map(numbers, pairs), strict=True), strict=True):
            cells[f"{source.name} {name}"] = values
    return cells.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with padded columns; texts to the left, numbers to the right."""
    grid_ = [[escaped(text) for text in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[i]) for row in grid_)) for i in range(len(head))]
    left = [title in ("defense", "needs") for title in head]
    padded = [
        [text.ljust(width) if to_left else text.rjust(width) for text, width, to_left in zip(row, widths, left, strict=True)]
        for row in grid_
    ]
    rule = [":" + "-" * (width - 1) if to_left else "-" * (width - 1) + ":" for width, to_left in zip(widths, left, strict=True)]
    return [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]


def escaped(text: str) -> str:
    """One line without Markdown, links or HTML of its own."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*`#]|\](?=[(\[]))", r"\\\1", text)
