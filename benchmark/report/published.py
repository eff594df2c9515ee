"""Published numbers beside ours: as a table, and the agreement of the two in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from benchmark.analysis.counterparts import Counterparts, Pair
from benchmark.analysis.statistics.ranks import Tau
from benchmark.report.published_cells import difference, numbers, printed, remarks, titled
from benchmark.report.typeset import Block, Entry, PaperTable, accuracy

VALUES = (
    *(
        "published mean",
        "published std",
        "ours mean",
        "ours std",
        "ours n",
        "ours failed",
        "difference in points",
        "differs in",
    ),
    *("published attack", "published defense", "published notes"),
)


def published_tables(counterparts: Sequence[Counterparts]) -> list[PaperTable]:
    """A table for each, named ``published-SOURCE``, further ones of a source ``published-SOURCE-2``
    and so on.
    """
    made: list[PaperTable] = []
    for one in counterparts:
        name = f"published-{one.source.replace('_', '-')}"
        earlier = sum(table.name.startswith(name) for table in made)
        made.append(
            _table(one, titled(one, counterparts), f"{name}-{earlier + 1}" if earlier else name)
        )
    return made


def _table(one: Counterparts, source: str, name: str) -> PaperTable:
    ratio = ("" if one.ratio == 1 else f", poison ratio {one.ratio:g}") + (
        f", preset {one.preset}" if one.preset else ""
    )
    blocks = []
    for _, group in groupby(one.pairs, key=lambda pair: (pair.attack, pair.published.attack)):
        pairs = list(group)
        title = (
            "clean data"
            if pairs[0].published.attack == "none"
            else _named(pairs[0].attack, pairs[0].published.attack)
        )
        blocks.append(
            Block(
                title,
                tuple(
                    (_named(pair.defense, pair.published.defense), _entries(pair)) for pair in pairs
                ),
            )
        )
    notes = [
        *agreement(one),
        *(f"Not the same: {text}." for text in one.differences),
        *remarks(one.pairs),
    ]
    return PaperTable(
        name,
        f"Test accuracy in % as published by {source} and as measured here on {one.dataset}, "
        f"victim {one.victim}, protocol "
        f"{one.protocol}{ratio}. Differences are ours minus published, in points.",
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


def agreement(one: Counterparts) -> tuple[str, str]:
    """Do the two tables put the defenses in the same order? Within an attack, and by their means
    over attacks.
    """
    return _said("Order of the defenses within an attack", one.within), _said(
        "Order of the defenses by their mean over attacks", one.over
    )


def _said(what: str, tau: Tau) -> str:
    if math.isnan(tau.value):
        return f"{what}: no rank agreement can be given, since {tau.reason}."
    interval = (
        f", 95 % interval {tau.interval[0]:.2f} to {tau.interval[1]:.2f}"
        if tau.interval
        else f" without an interval ({tau.reason})"
    )
    return (
        f"{what}: Kendall's τ-b {tau.value:.2f}{interval}, over {tau.attacks} attacks and "
        f"{tau.defenses} defenses."
    )
