"""Write the report as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmark.analysis.counterparts import Counterparts
from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.table import CELL
from benchmark.report import markdown as md
from benchmark.report.markdown import escaped
from benchmark.report.published_cells import PUBLISHED, numbers, sources, where_of
from benchmark.report.sections import HOW_TO_READ, Board, Section, environment, facts


def report_markdown(
    summary: Summary,
    sections: Sequence[Section],
    title: str,
    context: Mapping[str, str],
    counterparts: Sequence[Counterparts] = (),
) -> str:
    """The whole report without its plots, as GitHub-flavoured Markdown."""
    from benchmark.report import typeset
    from benchmark.report.published import published_tables

    lines = [
        f"# {escaped(title)}",
        "",
        "Accuracies in %, price in points, cost in undefended trainings.",
        "",
    ]
    for section in sections:
        lines += [
            f"## {escaped(section.title)}",
            "",
            escaped(section.summary),
            "",
            f"{section.seeds}. Cost by {section.clock}.",
            "",
        ]
        if section.doubts:
            lines += [
                "Numbers with a `!` mean nothing:",
                "",
                *(f"- {escaped(doubt.text)}" for doubt in section.doubts),
                "",
            ]
        for board in section.boards:
            if len(section.boards) > 1:
                lines += [f"### {board.title}", ""]
            lines += [*_ranking(board), ""]
        lines += ["### Accuracy by attack", ""]
        cells = [[row.name, *(cell.marked for cell in row.cells)] for row in section.rows]
        head = ["defense", *(column.title for column in section.columns)]
        lines += [*_table(head, cells), ""]
        here = [item for item in counterparts if where_of(item) == section.where]
        for table in published_tables(here):
            lines += ["### Published numbers beside ours", "", typeset.table_markdown(table)]
        lines += [
            *(f"- {escaped(note)}" for note in section.notes),
            *([""] if section.notes else []),
        ]
        if section.failures:
            lines += [
                "### Failed cells",
                "",
                *(f"- {escaped(item.where)}: {escaped(item.error)}" for item in section.failures),
                "",
            ]
    lines += [
        "## How to read this",
        "",
        *(f"- **{term}**: {meaning}" for term, meaning in HOW_TO_READ),
        "",
    ]
    lines += ["## Environment and command", ""]
    lines += [
        f"- {escaped(name)}: {escaped(value)}"
        for name, value in {**context, **facts(summary.table), **environment(summary.table)}.items()
    ]
    return "\n".join(lines) + "\n"


def _ranking(board: Board) -> list[str]:
    columns = {
        "rank": [row.rank_text for row in board.rows],
        "defense": [row.name for row in board.rows],
        "mean over attacks": [row.mean_marked for row in board.rows],
        "n": [str(row.n) for row in board.rows],
        "worst attack": [row.worst_marked for row in board.rows],
        "clean data": [row.clean_marked for row in board.rows],
        "price": [row.price_marked for row in board.rows],
        "cost": [row.cost_text for row in board.rows],
        "coverage": [row.coverage_text for row in board.rows],
        "needs": [row.needs for row in board.rows],
    }
    if not any(row.needs for row in board.rows):
        del columns["needs"]
    return _table(list(columns), list(zip(*columns.values(), strict=True)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[escaped(text) for text in row] for row in rows]
    return md.table(head, cells, [title in ("defense", "needs") for title in head])


def leaderboard_csv(summary: Summary) -> str:
    """The frame of ``leaderboard.leaderboard`` as CSV: shares in [0, 1], price in points.

    A field without a value is empty.
    """
    return summary.board.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def cells_csv(summary: Summary, counterparts: Sequence[Counterparts] = ()) -> str:
    """The frame of ``leaderboard.grid`` as CSV: one row a cell, shares in [0, 1], seconds.

    A field without a value is empty. Each source of published numbers adds columns for its mean and
    std, our difference in points, and the settings that are not the same.
    """
    cells = summary.cells.copy()
    for source in sources(counterparts):
        pairs = [
            source.pairs.get((tuple(where), attack, defense))
            for *where, attack, defense in zip(*(cells[c] for c in CELL), strict=True)
        ]
        for name, values in zip(PUBLISHED, zip(*map(numbers, pairs), strict=True), strict=True):
            cells[f"{source.name} {name}"] = values
    return cells.to_csv(index=False, float_format="%.6f", lineterminator="\n")
