"""Compare published numbers with ours, in a table, and describe how well their orders agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from benchmark.analysis.counterparts import Counterparts, Pair
from benchmark.analysis.statistics.agreement import Tau
from benchmark.report.published_cells import difference, numbers, printed, remarks, titled
from benchmark.report.typeset import Block, Entry, PaperTable, accuracy

VALUES = (
    *("published mean", "published std", "ours mean", "ours std", "ours n", "ours failed"),
    *("difference in points", "differs in"),
    *("published attack", "published defense", "published notes"),
)


def published_tables(counterparts: Sequence[Counterparts]) -> list[PaperTable]:
    """A table for each of ``counterparts``, named ``published-SOURCE``.

    Further tables of one source are named ``published-SOURCE-2`` and so on.
    """
    tables: list[PaperTable] = []
    for group in counterparts:
        name = f"published-{group.source.replace('_', '-')}"
        if earlier := sum(table.name.startswith(name) for table in tables):
            name = f"{name}-{earlier + 1}"
        tables.append(_table(group, titled(group, counterparts), name))
    return tables


def _table(group: Counterparts, source: str, name: str) -> PaperTable:
    ratio = ("" if group.ratio == 1 else f", poison ratio {group.ratio:g}") + (
        f", preset {group.preset}" if group.preset else ""
    )
    blocks = []
    by_attack = groupby(group.pairs, key=lambda pair: (pair.attack, pair.published.attack))
    for _, members in by_attack:
        pairs = list(members)
        ours, theirs = pairs[0].attack, pairs[0].published.attack
        title = "clean data" if theirs == "none" else _named(ours, theirs)
        lines = [(_named(pair.defense, pair.published.defense), _entries(pair)) for pair in pairs]
        blocks.append(Block(title, tuple(lines)))
    notes = [
        *agreement(group),
        *(f"Not the same: {text}." for text in group.differences),
        *remarks(group.pairs),
    ]
    return PaperTable(
        name,
        f"Test accuracy in % as published by {source} and as measured here on {group.dataset}, "
        f"victim {group.victim}, protocol {group.protocol}{ratio}. Differences are ours minus "
        "published, in points.",
        ("attack", "defense"),
        ("published", "ours", "difference", "not the same"),
        VALUES,
        tuple(blocks),
        tuple(notes),
        "rrrl",
    )


def _named(ours: str, theirs: str) -> str:
    return ours if ours == theirs else f"{ours} (there {theirs})"


def _entries(pair: Pair) -> tuple[Entry, ...]:
    row = pair.published
    mean, std, points, differs = numbers(pair)
    return (
        Entry(printed(pair), (mean, std)),
        accuracy(pair.mean, pair.std, pair.n, pair.failed),
        Entry(difference(pair), (points,)),
        Entry(differs, (differs, row.attack, row.defense, row.notes)),
    )


def agreement(counterparts: Counterparts) -> tuple[str, str, str]:
    """Say how well both tables agree on the order of all cells, and on that of the defenses.

    The second sentence is about the order within an attack, the third about the order of the means
    over attacks.
    """
    return (
        _sentence("Order of all cells of attack and defense", counterparts.cells),
        _sentence("Order of the defenses within an attack", counterparts.within),
        _sentence("Order of the defenses by their mean over attacks", counterparts.over),
    )


def _sentence(what: str, tau: Tau) -> str:
    if math.isnan(tau.value):
        return f"{what}: no rank agreement can be given, since {tau.reason}."
    interval = f" without an interval ({tau.reason})"
    if tau.interval:
        interval = f", 95 % interval {tau.interval[0]:.2f} to {tau.interval[1]:.2f}"
    return (
        f"{what}: Kendall's τ-b {tau.value:.2f}{interval}, over {tau.attacks} attacks, "
        f"{tau.defenses} defenses and {tau.pairs} pairs."
    )
