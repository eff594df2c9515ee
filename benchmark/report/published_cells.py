"""Published numbers by the measured cell that each stands beside, for the tables that have room for
them. Nothing is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.analysis.counterparts import Counterparts, Pair
from benchmark.report.numbers import signed
from benchmark.report.typeset import Entry

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
    """What one source says of several groups: of a cell that it prints twice, the number that it
    prints first.

    Attributes:
        name: for files and columns: the source's, with its data set where several were asked for.
        differences: what the pairs' ``differs`` means, a sentence each.
        twice: whether some numbers were left out since the source prints the cell twice.
    """

    name: str
    pairs: Mapping[Place, Pair]
    differences: Mapping[Where, tuple[str, ...]]
    twice: bool


def where_of(one: Counterparts) -> Where:
    return one.dataset, one.victim, one.protocol, one.ratio, one.preset


def sources(counterparts: Sequence[Counterparts]) -> list[Source]:
    """In the order in which they were asked for."""
    by_key: dict[tuple[str, str], list[Counterparts]] = {}
    for one in counterparts:
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


def titled(one: Counterparts, counterparts: Iterable[Counterparts]) -> str:
    """The source's name, with its data set where ``counterparts`` has several data sets of it."""
    datasets = {
        other.pairs[0].published.dataset for other in counterparts if other.source == one.source
    }
    return f"{one.source} ({one.pairs[0].published.dataset})" if len(datasets) > 1 else one.source


def remarks(pairs: Iterable[Pair]) -> list[str]:
    """What the file of published numbers notes on those of these pairs, as one sentence.

    None where it notes nothing.
    """
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
    """For CSV files: published mean and std, shares in [0, 1]; the difference in points.

    What is not the same. Empty without a pair.
    """
    if pair is None:
        return "", "", "", ""
    shown = (
        "" if math.isnan(value) else f"{value:.{digits}f}"
        for value, digits in ((pair.published.mean, 6), (pair.published.std, 6), (points(pair), 4))
    )
    return *shown, ", ".join(pair.differs)  # type: ignore[return-value]


NUMBERS = ("mean", "std", "n", "failed")  # what the CSV holds of an accuracy


Line = tuple[str, tuple[Entry, ...]]


class SourceLines:
    """What stands of one source beside our numbers; nothing without a source."""

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self.values = NUMBERS + (PUBLISHED if source else ())

    def lines(
        self, label: str, ours: Sequence[Entry], places: Sequence[tuple[Where, str, str]]
    ) -> list[Line]:
        """Our line and, where the source has some of its cells, those of the published numbers.

        The CSV has all of it in the first one.
        """
        if self.source is None:
            return [(label, tuple(ours))]
        pairs = [self.source.pairs.get(place) for place in places] or [None] * len(ours)
        lines = [
            (
                label,
                tuple(
                    replace(entry, values=entry.values + numbers(pair))
                    for entry, pair in zip(ours, pairs, strict=True)
                ),
            )
        ]
        if any(pairs):
            for what, text in (
                ("published", printed),
                ("difference", difference),
                ("not the same", _letters),
            ):
                texts = [text(pair) if pair else "" for pair in pairs]
                lines += (
                    [(f"{label}: {what}", tuple(Entry(shown, ()) for shown in texts))]
                    if any(texts)
                    else []
                )
        return lines

    def named(self, name: str) -> str:
        return f"{name}-{self.source.name.replace('_', '-')}" if self.source else name

    def has(self, wheres: Collection[Where]) -> bool:
        """Is there anything to show?"""
        return self.source is None or any(where in wheres for where, _, _ in self.source.pairs)

    def notes(self, wheres: Collection[Where]) -> list[str]:
        if self.source is None:
            return []
        sentences = [
            sentence for where in wheres for sentence in self.source.differences.get(where, ())
        ]
        twice = (
            " Of what it prints twice the first stands here; the tables of published numbers "
            "(table-published-…) have all."
        )
        return [
            f"Published: by {self.source.name}. Difference: ours minus published, in points. "
            "Means and marks are of ours alone." + (twice if self.source.twice else ""),
            *(
                f"Not the same ({_LETTER[kind]}): {text}."
                for kind in KINDS
                for text in dict.fromkeys(sentences)
                if text.startswith(kind)
            ),
            *remarks(pair for (where, _, _), pair in self.source.pairs.items() if where in wheres),
        ]


_LETTER = dict(zip(KINDS, "abcdefg", strict=True))


def _letters(pair: Pair) -> str:
    return ",".join(_LETTER[kind] for kind in pair.differs)
