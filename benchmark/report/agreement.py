"""Show how well published tables and ours agree on orders: for the terminal, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.analysis.counterparts import Counterparts, Pair
from benchmark.analysis.statistics.agreement import TIE, Tau
from benchmark.report import markdown
from benchmark.report.numbers import ABSENT
from benchmark.report.published_cells import titled, where_of
from benchmark.report.terminal import plain, say

AIM = 0.8  # of the tau-b over all cells
COLUMNS = ("source", "attacks", "defenses", "cells", "τ-b", "95 % interval", "within", "pairs")
HOW_TO_READ = (
    "A cell is an attack and a defense that both tables have, without clean data and without the "
    "undefended victim.",
    "τ-b is Kendall's tau-b over all pairs of cells: 1 is the same order, -1 the reverse. "
    f"The aim is {AIM}.",
    f"Two accuracies of one table that are less than {100 * TIE:g} points apart are a tie.",
    "The interval is a percentile bootstrap over attacks; from five to ten attacks it is rough, "
    "and rather too narrow.",
    "Within is the tau-b over the pairs of defenses that face the same attack alone; pairs counts "
    "these.",
    "Both look at the order alone: a cell may be far off and keep its place.",
)
_OF_TWO = "opposite order, cells of two attacks:"
_SHOWN = 5  # discordant pairs of different attacks in the terminal; the file has all


def agreement_row(source: str, cells: Tau, within: Tau) -> list[str]:
    """The texts of one line, in ``COLUMNS``."""
    interval = " to ".join(f"{value:.2f}" for value in cells.interval or ()) or ABSENT
    sizes = map(str, (cells.attacks, cells.defenses, cells.cells))
    return [source, *sizes, _value(cells), interval, _value(within), str(within.pairs)]


def agreement_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of lines that ``agreement_row`` returns."""
    escaped = [[markdown.escaped(text) for text in row] for row in rows]
    return "\n".join(markdown.table(COLUMNS, escaped, [name == "source" for name in COLUMNS]))


def discordant_lines(group: Counterparts, same_attack: bool) -> list[str]:
    """One line for each pair of cells in opposite order, the widest first.

    For example ``em: jpeg 68.6 > grayscale 12.4 here, 80.7 < 92.0 there``.

    Args:
        group: the counterparts of one source.
        same_attack: whether the pairs of one attack or those of two attacks are wanted.
    """
    return [
        _line(ahead, behind)
        for ahead, behind in group.discordant
        if (ahead.attack == behind.attack) == same_attack
    ]


def agreement_markdown(groups: Sequence[Counterparts], name: str, about: Mapping[str, str]) -> str:
    """A page with the table, all pairs in opposite order, and what differs besides.

    Args:
        groups: what ``agreements`` returns.
        name: of the suite.
        about: further facts to show, such as the command.
    """
    lines = [f"# Agreement of {markdown.escaped(name)} with published tables", ""]
    for title, members in _by_place(groups):
        rows = [agreement_row(titled(one, groups), one.cells, one.within) for one in members]
        lines += [f"## {markdown.escaped(title)}", "", agreement_table(rows), ""]
        for one in members:
            parts = [*_orders(one), ("not the same:", list(one.differences))]
            lines += [f"### {markdown.escaped(titled(one, groups))}", ""]
            for heading, told in parts:
                if told:
                    points = [f"- {markdown.escaped(line)}" for line in told]
                    lines += [heading.capitalize(), "", *points, ""]
    lines += ["## How to read this", "", *(f"- {text}" for text in HOW_TO_READ)]
    lines += [f"- {key}: `{value}`" for key, value in about.items()]
    return "\n".join(lines) + "\n"


def print_agreement(groups: Sequence[Counterparts], console: Console) -> None:
    """Print the table, and the pairs in opposite order: of two attacks only the widest."""
    for place, members in _by_place(groups):
        say(console, f"\n{place}", "bold")
        rows = [agreement_row(titled(one, groups), one.cells, one.within) for one in members]
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for index, column in enumerate(COLUMNS):
            width = max(len(text) for text in (column, *(row[index] for row in rows)))
            shown.add_column(
                Text(plain(column, console)),
                justify="right" if index else "left",
                min_width=width if index else None,  # numbers are never cut
                overflow="fold",
            )
        for row in rows:
            shown.add_row(*(Text(plain(text, console)) for text in row))
        console.print(shown)
        for one in members:
            for heading, told in _orders(one):
                limit = len(told) if heading != _OF_TWO else _SHOWN
                if told:
                    say(console, f"\n{titled(one, groups)}: {heading}")
                for line in told[:limit]:
                    say(console, f"  {line}")
                if len(told) > limit:
                    say(console, f"  and {len(told) - limit} more, which the file lists", "dim")
    say(console, "")
    for text in HOW_TO_READ:
        say(console, text, "dim")


def _orders(group: Counterparts) -> list[tuple[str, list[str]]]:
    """What there is to say on the orders of a source: headings with the lines below them."""
    lacks = "value" if math.isnan(group.cells.value) else "interval"
    why = [f"there is no {lacks}: {group.cells.reason}"]
    return [
        ("note:", why if group.cells.reason else []),
        ("opposite order, same attack:", discordant_lines(group, True)),
        (_OF_TWO, discordant_lines(group, False)),
    ]


def _by_place(groups: Iterable[Counterparts]) -> list[tuple[str, list[Counterparts]]]:
    """The groups of each place where our cells were measured, with its title."""
    ordered = sorted(groups, key=where_of)
    places = []
    for (dataset, victim, protocol, ratio, preset), members in groupby(ordered, key=where_of):
        more = "" if ratio == 1 else f", poison ratio {ratio:g}"
        more += f", preset {preset}" if preset else ""
        places.append((f"{dataset}, victim {victim}, protocol {protocol}{more}", list(members)))
    return places


def _line(ahead: Pair, behind: Pair) -> str:
    same = ahead.attack == behind.attack
    names = [one.defense if same else f"{one.defense} on {one.attack}" for one in (ahead, behind)]
    there = f"{100 * ahead.published.mean:.1f} < {100 * behind.published.mean:.1f} there"
    return (f"{ahead.attack}: " if same else "") + (
        f"{names[0]} {100 * ahead.mean:.1f} > {names[1]} {100 * behind.mean:.1f} here, {there}"
    )


def _value(tau: Tau) -> str:
    return ABSENT if math.isnan(tau.value) else f"{tau.value:.2f}"
