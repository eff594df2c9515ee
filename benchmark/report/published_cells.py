"""Published numbers by the measured cell that each stands beside, for the tables that have room for them. Nothing is averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.analysis.counterparts import Beside, Pair
from benchmark.report.sections import signed

KINDS = (
    "data set",
    "victim",
    "epochs",
    "poison ratio",
    "budget",
    "attack",
    "defense",
)  # what ``Pair.differs`` may name
PUBLISHED = (
    "published mean",
    "published std",
    "difference in points",
    "not the same",
)  # what ``numbers`` gives

Where = tuple[
    str, str, str, float, str
]  # data set, victim, protocol, poison ratio, preset of attacks
Place = tuple[Where, str, str]  # with attack and defense


@dataclass(frozen=True)
class Source:
    """What one source says of several groups: of a cell that it prints twice, the number that it prints first.

    Attributes:
        name: for files and columns: the source's, with its data set where several were asked for.
        differences: what the pairs' ``differs`` means, a sentence each.
        twice: whether some numbers were left out since the source prints the cell twice.
    """

    name: str
    pairs: Mapping[Place, Pair]
    differences: Mapping[Where, tuple[str, ...]]
    twice: bool


def where_of(one: Beside) -> Where:
    return one.dataset, one.victim, one.protocol, one.ratio, one.preset


def sources(besides: Sequence[Beside]) -> list[Source]:
    """In the order in which they were asked for."""
    by_key: dict[tuple[str, str], list[Beside]] = {}
    for one in besides:
        by_key.setdefault((one.source, one.pairs[0].published.dataset), []).append(one)
    found = []
    for (source, dataset), parts in by_key.items():
        pairs: dict[Place, Pair] = {}
        for one in parts:
            for pair in one.pairs:
                pairs.setdefault((where_of(one), pair.attack, pair.defense), pair)
        alone = sum(other == source for other, _ in by_key) == 1
        twice = sum(len(one.pairs) for one in parts) > len(pairs)
        found.append(
            Source(
                source if alone else f"{source}-{dataset}",
                pairs,
                {where_of(one): one.differences for one in parts},
                twice,
            )
        )
    return found


def printed(pair: Pair) -> str:
    """The published accuracy in %, with the two decimals of papers."""
    row = pair.published
    return f"{100 * row.mean:.2f}" + ("" if math.isnan(row.std) else f" ± {100 * row.std:.2f}")


def titled(one: Beside, besides: Iterable[Beside]) -> str:
    """The source's name, with its data set where ``besides`` has several data sets of it."""
    datasets = {other.pairs[0].published.dataset for other in besides if other.source == one.source}
    return f"{one.source} ({one.pairs[0].published.dataset})" if len(datasets) > 1 else one.source


def remarks(pairs: Iterable[Pair]) -> list[str]:
    """What the file of published numbers notes on those of these pairs, as one sentence; none where it notes nothing."""
    noted = dict.fromkeys(
        phrase for pair in pairs for phrase in pair.published.notes.split("; ") if phrase
    )
    return [f"On the published numbers: {'; '.join(noted)}."] if noted else []


def points(pair: Pair) -> float:
    """Ours minus published, in points; NaN where ours failed."""
    return 100 * (pair.mean - pair.published.mean)


def difference(pair: Pair) -> str:
    """The same with its sign and one decimal, no negative zero; ``-`` where ours failed."""
    return signed(points(pair))


def numbers(pair: Pair | None) -> tuple[str, str, str, str]:
    """For CSV files: published mean and std, shares in [0, 1]; the difference in points; what is not the same. Empty without a pair."""
    if pair is None:
        return "", "", "", ""
    shown = (
        "" if math.isnan(value) else f"{value:.{digits}f}"
        for value, digits in ((pair.published.mean, 6), (pair.published.std, 6), (points(pair), 4))
    )
    return *shown, ", ".join(pair.differs)  # type: ignore[return-value]
