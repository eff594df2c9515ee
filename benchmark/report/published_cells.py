"""Look up published numbers by measured cell, for tables that show them beside ours.

Nothing is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.analysis.counterparts import Counterparts, Pair
from benchmark.report.numbers import signed
from benchmark.report.typeset import Entry

# the names in ``Pair.differs``
KINDS = ("data set", "victim", "epochs", "poison ratio", "budget", "attack", "defense")
# the columns of ``numbers``
PUBLISHED = ("published mean", "published std", "difference in points", "not the same")

# data set, victim, protocol, poison ratio, preset of attacks
Where = tuple[str, str, str, float, str]
Place = tuple[Where, str, str]  # with attack and defense


@dataclass(frozen=True)
class Source:
    """The numbers of one source for several groups.

    Attributes:
        name: for files and columns: the source, with its data set if several were selected.
        pairs: one pair a cell; if the source prints a cell twice, the number that it prints first.
        differences: for each group, one sentence for each difference that ``Pair.differs`` names.
        twice: whether some numbers were left out since the source prints the cell twice.
    """

    name: str
    pairs: Mapping[Place, Pair]
    differences: Mapping[Where, tuple[str, ...]]
    twice: bool


def where_of(group: Counterparts) -> Where:
    """The labels of the group of measured cells."""
    return group.dataset, group.victim, group.protocol, group.ratio, group.preset


def sources(counterparts: Sequence[Counterparts]) -> list[Source]:
    """The sources of ``counterparts``, in this order."""
    by_key: dict[tuple[str, str], list[Counterparts]] = {}
    for group in counterparts:
        by_key.setdefault((group.source, group.pairs[0].published.dataset), []).append(group)
    made = []
    for (source, dataset), groups in by_key.items():
        pairs: dict[Place, Pair] = {}
        for group in groups:
            for pair in group.pairs:
                pairs.setdefault((where_of(group), pair.attack, pair.defense), pair)
        alone = sum(other == source for other, _ in by_key) == 1
        name = source if alone else f"{source}-{dataset}"
        twice = sum(len(group.pairs) for group in groups) > len(pairs)
        differences = {where_of(group): group.differences for group in groups}
        made.append(Source(name, pairs, differences, twice))
    return made


def printed(pair: Pair) -> str:
    """The published accuracy in %, with two decimals as in papers."""
    row = pair.published
    return f"{100 * row.mean:.2f}" + ("" if math.isnan(row.std) else f" ± {100 * row.std:.2f}")


def titled(group: Counterparts, counterparts: Iterable[Counterparts]) -> str:
    """The source's name, with its data set if ``counterparts`` has several data sets of it."""
    datasets = {
        other.pairs[0].published.dataset for other in counterparts if other.source == group.source
    }
    if len(datasets) == 1:
        return group.source
    return f"{group.source} ({group.pairs[0].published.dataset})"


def remarks(pairs: Iterable[Pair]) -> list[str]:
    """The notes in the file of published numbers on these pairs, as one sentence.

    The list is empty if there are no notes.
    """
    noted = dict.fromkeys(
        phrase for pair in pairs for phrase in pair.published.notes.split("; ") if phrase
    )
    return [f"On the published numbers: {'; '.join(noted)}."] if noted else []


def points(pair: Pair) -> float:
    """Ours minus published, in points; NaN if ours failed."""
    return 100 * (pair.mean - pair.published.mean)


def difference(pair: Pair) -> str:
    """Ours minus published, in points with sign and one decimal; ``-`` if ours failed."""
    return signed(points(pair))


def numbers(pair: Pair | None) -> tuple[str, str, str, str]:
    """The values of the columns ``PUBLISHED``, for CSV files.

    Published mean and std are shares in [0, 1], the difference is in points, and the last value
    lists what is not the same. Without a pair all are empty.
    """
    if pair is None:
        return "", "", "", ""
    shown = (
        "" if math.isnan(value) else f"{value:.{digits}f}"
        for value, digits in ((pair.published.mean, 6), (pair.published.std, 6), (points(pair), 4))
    )
    return *shown, ", ".join(pair.differs)  # type: ignore[return-value]


NUMBERS = ("mean", "std", "n", "failed")  # the CSV columns of an accuracy


Line = tuple[str, tuple[Entry, ...]]


class SourceLines:
    """The lines, titles and notes that one source adds to our tables; none without a source."""

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self.values = NUMBERS + (PUBLISHED if source else ())

    def lines(
        self, label: str, ours: Sequence[Entry], places: Sequence[tuple[Where, str, str]]
    ) -> list[Line]:
        """Our line and, if the source has some of its cells, the lines of published numbers.

        The values for the CSV are all in the first line.
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
            forms = {"published": printed, "difference": difference, "not the same": _letters}
            for what, form in forms.items():
                texts = [form(pair) if pair else "" for pair in pairs]
                if any(texts):
                    lines.append((f"{label}: {what}", tuple(Entry(text, ()) for text in texts)))
        return lines

    def named(self, name: str) -> str:
        """The name of a table, with the name of the source."""
        return f"{name}-{self.source.name.replace('_', '-')}" if self.source else name

    def has(self, wheres: Collection[Where]) -> bool:
        """Whether there is a table to show for these groups: always without a source."""
        return self.source is None or any(where in wheres for where, _, _ in self.source.pairs)

    def notes(self, wheres: Collection[Where]) -> list[str]:
        """What the published numbers are and how they differ from ours, as sentences."""
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
