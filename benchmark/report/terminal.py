"""Print the leaderboard in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.analysis.leaderboard import Summary
from benchmark.report.sections import Board, Row, Section, sections

_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class _Column:
    title: str
    texts: tuple[str, ...]  # one a row
    values: tuple[float, ...]  # larger is better; NaN for a value that takes no part
    left: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.title, *self.texts))


def print_leaderboard(summary: Summary, console: Console) -> None:
    """Print one ranking a group, best first, with the best value of each column in bold.

    Numbers are never cut: if the terminal is too narrow, whole columns are left out from the right
    and named below the table. A file or a pipe has no width, so it gets every column.

    Raises:
        ValueError: if the table is empty.
    """
    for section in sections(summary):
        console.print()
        say(console, section.title, "bold")
        say(
            console,
            f"{section.seeds}; accuracies in %, price in points, cost by {section.clock}",
            "dim",
        )
        for doubt in section.doubts:
            say(console, f"! {doubt.text}", "yellow")
        for board in section.boards:
            if len(section.boards) > 1:
                say(console, f"\n{board.title}")
            _print_board(board, section, console)
        for note in section.notes:
            say(console, note, "dim")
        for failure in section.failures[:_SHOWN_FAILURES]:
            say(console, f"failed: {failure.where}: {' '.join(failure.error.split())}", "red")
        if len(section.failures) > _SHOWN_FAILURES:
            say(
                console,
                f"and {len(section.failures) - _SHOWN_FAILURES} more failed cells; the report "
                "lists them all",
                "red",
            )


def say(console: Console, text: str, style: str = "") -> None:
    """Print a text in characters that the console has, without markup."""
    console.print(Text(plain(text, console), style), soft_wrap=not console.is_terminal)


def _print_board(board: Board, section: Section, console: Console) -> None:
    columns = _columns(board, section, console)
    room = console.width if console.is_terminal else math.inf
    kept = list(columns)
    while len(kept) > 3 and _width(kept) > room:  # rank, defense and mean always stay
        kept.pop()
    shown = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False
    )
    for column in kept:
        fold = column.left and _width(kept) > room
        shown.add_column(
            Text(column.title),
            justify="left" if column.left else "right",
            no_wrap=not fold,
            overflow="fold",
        )
        if not fold:
            shown.columns[-1].min_width = column.width
    best = [math.nan if section.no_claim else _best(column) for column in kept]
    for index, row in enumerate(board.rows):
        texts = [
            Text(column.texts[index], "bold" if column.values[index] == top else "")
            for column, top in zip(kept, best, strict=True)
        ]
        shown.add_row(*texts, style="dim" if row.is_undefended else "")
    if console.is_terminal:
        console.print(shown)
    else:
        shown.width = _width(kept)
        console.print(shown, width=shown.width, crop=False, no_wrap=True, overflow="ignore")
    if dropped := [column.title for column in columns[len(kept) :]]:
        say(
            console,
            f"left out, since the terminal is {console.width} columns wide: {', '.join(dropped)}",
            "yellow",
        )


def _columns(board: Board, section: Section, console: Console) -> list[_Column]:
    def column(
        title: str,
        text: Callable[[Row], str],
        value: Callable[[Row], float] | None = None,
        left: bool = False,
    ) -> _Column:
        values = tuple(
            math.nan if value is None or row.is_undefended else value(row) for row in board.rows
        )
        return _Column(title, tuple(plain(text(row), console) for row in board.rows), values, left)

    uneven = len({row.n for row in board.rows}) > 1  # otherwise the line above the table says it
    columns = [
        column("rank", lambda row: row.rank_text),
        column("defense", lambda row: row.name, left=True),
        column("mean", lambda row: row.mean_marked, lambda row: row.mean),
        *([column("n", lambda row: str(row.n))] if uneven else []),
        column("worst", lambda row: row.worst_marked, lambda row: row.worst),
        column("clean price", lambda row: row.price_marked, lambda row: -row.price),
        column("cost", lambda row: row.cost_text, lambda row: -row.cost),
    ]
    if any(row.needs for row in board.rows):
        columns.append(column("needs", lambda row: row.needs, left=True))
    if any(row.covered < row.attacks for row in board.rows):
        columns.append(column("coverage", lambda row: row.coverage_text))

    def cell(index: int, title: str) -> _Column:
        return column(title, lambda row: row.cells[index].marked, lambda row: row.cells[index].mean)

    return columns + [cell(i, shown.title) for i, shown in enumerate(section.columns)]


def _best(column: _Column) -> float:
    """The value to print in bold; NaN if fewer than two values take part."""
    values = [value for value in column.values if not math.isnan(value)]
    return max(values) if len(values) > 1 else math.nan


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + 2 * (len(columns) - 1)


def plain(text: str, console: Console) -> str:
    """The text with characters that the console's encoding lacks replaced."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").replace("×", "x").replace("·", "-")
        return text.encode(console.encoding, "replace").decode(console.encoding)
    return text
