"""Turn the long table into sections, which every form of the report shows.

A section is one group of comparable results. It holds the texts to show, and the numbers by which
tables sort.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmark.analysis.doubts import Chance, Doubt, at_chance, in_doubt
from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.table import GROUP, SECONDS_IN_WORDS, caveats, sharing
from benchmark.report.numbers import ABSENT, marked, number, percent, shade, times

if TYPE_CHECKING:
    import pandas as pd


NO_CLAIM = "clean accuracy is near chance"

UPPER = "clean data, undefended"
NO_LEVELS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class TableCell:
    """One defense against one attack.

    ``mean`` and ``std`` are shares in [0, 1], NaN without a value; ``text`` is in %, ``marked`` has
    a ``!`` behind it if there are ``doubts``: sentences that say why the number means nothing.
    """

    column: str
    mean: float
    std: float
    n: int
    failed: int
    doubts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        if self.n == 0:
            return "failed" if self.failed else ABSENT
        return percent(self.mean, self.std)

    @property
    def marked(self) -> str:
        return marked(self.text, self.doubts)

    @property
    def colours(self) -> tuple[str, str] | None:
        """Background and text colour, or None without a number."""
        return shade(self.mean) if self.n else None


@dataclass(frozen=True)
class Row:
    """One defense of a leaderboard.

    The numbers have the units of ``leaderboard.leaderboard``; the texts are for tables, with a
    ``!`` behind a number in doubt. ``doubts`` says why a number is: by ``mean``, ``worst`` and
    ``clean``, which is for the price too.
    """

    rank: int | None
    defense: str
    is_undefended: bool
    mean: float
    std: float
    n: int
    worst: float
    worst_attack: str
    clean: float
    price: float
    cost: float
    covered: int
    attacks: int
    missing: str
    needs: str
    cells: tuple[TableCell, ...]
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.defense} (undefended)" if self.is_undefended else self.defense

    @property
    def rank_text(self) -> str:
        return ABSENT if self.rank is None else str(self.rank)

    @property
    def mean_text(self) -> str:
        return percent(self.mean, self.std)

    @property
    def mean_marked(self) -> str:
        return marked(self.mean_text, self.doubts.get("mean"))

    @property
    def worst_marked(self) -> str:
        if not self.worst_attack:
            return ABSENT
        return f"{marked(percent(self.worst), self.doubts.get('worst'))} ({self.worst_attack})"

    @property
    def clean_text(self) -> str:
        return percent(self.clean)

    @property
    def clean_marked(self) -> str:
        return marked(self.clean_text, self.doubts.get("clean"))

    @property
    def price_text(self) -> str:
        return number(self.price)

    @property
    def price_marked(self) -> str:
        return marked(self.price_text, self.doubts.get("clean"))

    @property
    def cost_text(self) -> str:
        return times(self.cost)

    @property
    def coverage_text(self) -> str:
        return f"{self.covered}/{self.attacks}"


@dataclass(frozen=True)
class Board:
    """One ranking. Defenses with privileges have a ranking of their own."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Column:
    """One attack of a section, or the clean data."""

    attack: str
    is_clean: bool

    @property
    def title(self) -> str:
        return "clean data" if self.is_clean else self.attack


@dataclass(frozen=True)
class FailedRun:
    """A seed of a cell that failed, and why."""

    where: str
    error: str


@dataclass(frozen=True)
class Section:
    """One group of comparable results.

    A group is a data set, a victim, a protocol, a poison ratio and a preset of attacks.

    Attributes:
        preset: of the attacks; empty for the default.
        curves: (defense, attack) -> one curve a seed, shares in [0, 1].
        clock: whose seconds the cost counts, in words: "CPU seconds".
        shown: which part of the group this is, such as "12 of 25 defenses"; empty for the whole.
        doubts: which numbers mean nothing, and why.
        no_claim: why nothing can be ranked here; empty where it can.
        levels: see ``levels``.
    """

    dataset: str
    victim: str
    protocol: str
    ratio: float
    preset: str
    columns: tuple[Column, ...]
    boards: tuple[Board, ...]
    seeds: str
    summary: str
    notes: tuple[str, ...]
    failures: tuple[FailedRun, ...]
    curves: Mapping[tuple[str, str], list[tuple[float, ...]]]
    clock: str
    shown: str = ""
    doubts: tuple[Doubt, ...] = ()
    no_claim: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def where(self) -> tuple[str, str, str, float, str]:
        return self.dataset, self.victim, self.protocol, self.ratio, self.preset

    @property
    def title(self) -> str:
        ratio = f" · poison ratio {self.ratio:g}" if self.ratio != 1 else ""
        preset = f" · preset {self.preset}" if self.preset else ""
        return f"{self.dataset} · {self.victim} · {self.protocol}{ratio}{preset}" + (
            f" · {self.shown}" if self.shown else ""
        )

    @property
    def rows(self) -> list[Row]:
        return [row for board in self.boards for row in board.rows]


def sections(summary: Summary) -> list[Section]:
    """The groups of a long table, in alphabetical order.

    Raises:
        ValueError: if the table is empty.
    """
    if summary.table.empty:
        raise ValueError(
            "there are no records to report; run a suite first, or point --results at the folder "
            "of a run that has finished cells"
        )
    cells = dict(iter(summary.cells.groupby(GROUP)))
    runs = dict(iter(summary.runs.groupby(GROUP)))
    return [
        _section(board, cells[group], runs[group], summary.doubts[group], summary.chances[group])
        for group, board in summary.board.groupby(GROUP)
    ]


def _section(
    board: pd.DataFrame,
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    doubts: tuple[Doubt, ...],
    chance: Chance | None,
) -> Section:
    columns = _columns(cells)
    why = in_doubt(doubts)
    by_place = {
        (str(defense), str(attack)): TableCell(
            str(attack),
            float(mean),
            float(std),
            int(n),
            int(failed),
            why.get((attack, defense), ()),
        )
        for defense, attack, mean, std, n, failed in zip(
            *(cells[name] for name in ("defense", "attack", "mean", "std", "n", "failed")),
            strict=True,
        )
    }
    boards = []
    for with_needs, part in board.groupby("with_needs", sort=True):
        rows = tuple(_row(values, columns, by_place) for values in part.to_dict("records"))
        title = "Defenses without privileges"
        if with_needs:
            title = "Defenses that need clean data or pretrained weights"
        boards.append(Board(title, rows))
    rows = tuple(row for part in boards for row in part.rows)
    curves: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for defense, attack, curve in zip(runs["defense"], runs["attack"], runs["curve"], strict=True):
        if curve:
            curves.setdefault((defense, attack), []).append(curve)
    failed = runs[runs["status"] == "failed"]
    failures = tuple(
        FailedRun(f"{attack} + {defense}, seed {seed}", error.strip() or "no reason recorded")
        for attack, defense, seed, error in zip(
            *(failed[name] for name in ("attack", "defense", "seed", "error")), strict=True
        )
    )
    dataset, victim, protocol, ratio, preset = board[GROUP].iloc[0]
    no_claim = NO_CLAIM if at_chance(doubts) else ""
    texts = _seeds(rows, runs), _summary(boards, columns, no_claim), _notes(rows, columns, runs)
    where = dataset, victim, protocol, ratio, preset
    clock = SECONDS_IN_WORDS[board["clock"].iloc[0]]
    return Section(
        *where,
        columns,
        tuple(boards),
        *texts,
        failures,
        curves,
        clock,
        doubts=doubts,
        no_claim=no_claim,
        levels=levels(cells, chance),
    )


def levels(cells: pd.DataFrame, chance: Chance | None) -> dict[str, float]:
    """The accuracies that plots draw as lines, shares in [0, 1], by name; only those known.

    They are that of a guesser, and that of the undefended victim on clean data.
    """
    clean = cells.loc[cells["is_clean"] & cells["is_undefended"], "mean"].mean()
    known = {"chance": math.nan if chance is None else chance.share, UPPER: float(clean)}
    return {name: share for name, share in known.items() if not math.isnan(share)}


def _columns(cells: pd.DataFrame) -> tuple[Column, ...]:
    attacks = sorted(
        cells[["attack", "is_clean"]].drop_duplicates().itertuples(index=False),
        key=lambda item: (not item[1], item[0]),
    )
    return tuple(Column(str(attack), bool(is_clean)) for attack, is_clean in attacks)


def _row(
    values: Mapping[Any, Any], columns: Sequence[Column], cells: Mapping[tuple[str, str], TableCell]
) -> Row:
    defense, rank = str(values["defense"]), values["rank"]
    own = tuple(
        cells.get((defense, column.attack), TableCell(column.attack, math.nan, math.nan, 0, 0))
        for column in columns
    )
    clean = {column.attack for column in columns if column.is_clean}
    of = {
        "mean": [cell for cell in own if cell.column not in clean],
        "worst": [cell for cell in own if cell.column == values["worst_attack"]],
        "clean": [cell for cell in own if cell.column in clean],
    }
    return Row(
        rank=rank if isinstance(rank, int) else None,
        defense=defense,
        is_undefended=bool(values["is_undefended"]),
        mean=float(values["mean"]),
        std=float(values["std"]),
        n=int(values["n"]),
        worst=float(values["worst"]),
        worst_attack=str(values["worst_attack"]),
        clean=float(values["clean"]),
        price=float(values["price_points"]),
        cost=float(values["cost"]),
        covered=int(values["covered"]),
        attacks=int(values["attacks"]),
        missing=str(values["missing"]),
        needs=str(values["needs"]),
        cells=own,
        doubts={
            name: tuple(dict.fromkeys(why for cell in part for why in cell.doubts))
            for name, part in of.items()
        },
    )


def _seeds(rows: Sequence[Row], runs: pd.DataFrame) -> str:
    counts = sorted({cell.n for row in rows for cell in row.cells if cell.n})
    if not counts:
        return "no cell has finished"
    if counts == [1]:
        return "one seed: no interval"
    if len(counts) == 1:
        return f"{counts[0]} seeds{sharing(runs)}: mean ± standard deviation over seeds"
    return (
        f"{counts[0]} to {counts[-1]} seeds a cell{sharing(runs)}: mean ± standard deviation "
        "over seeds where there are two or more"
    )


def _summary(boards: Sequence[Board], columns: Sequence[Column], no_claim: str) -> str:
    """One sentence: the best defense, and the undefended accuracies to compare it with."""
    attacks = sum(not column.is_clean for column in columns)
    if not attacks:
        return "Clean data only: there is no attack to rank defenses by."
    over = f"over {attacks} attack{'s' if attacks > 1 else ''}"
    leaders = [row for board in boards[:1] for row in board.rows if row.rank == 1]
    anchor = next((row for board in boards for row in board.rows if row.is_undefended), None)
    parts = [f"Best mean {over}: {row.defense}, {percent(row.mean)} %" for row in leaders[:1]] or [
        f"No defense is ranked {over}" + (f", since {no_claim}" if no_claim else "")
    ]
    if anchor is not None and not math.isnan(anchor.mean):
        parts.append(f"undefended {percent(anchor.mean)} %")
    if anchor is not None and not math.isnan(anchor.clean):
        parts.append(f"undefended on clean data {percent(anchor.clean)} %")
    return "; ".join(parts) + "."


def _notes(rows: Sequence[Row], columns: Sequence[Column], runs: pd.DataFrame) -> tuple[str, ...]:
    notes = [
        f"{row.name}: {'no rank; ' if not row.is_undefended else ''}lacks {row.missing}"
        for row in rows
        if row.missing
    ]
    partial = [
        f"{row.name} on {column.title}: {cell.n} of {cell.n + cell.failed} seeds finished"
        for row in rows
        for column, cell in zip(columns, row.cells, strict=True)
        if cell.n and cell.failed
    ]
    if not any(column.is_clean for column in columns):
        partial.append("no clean data among the records: there is no price")
    return (*notes, *partial, *caveats(runs))


def environment(table: pd.DataFrame) -> dict[str, str]:
    """The environments in which the records were made; several values of one entry are joined."""
    entries: dict[str, list[str]] = {}
    for text in table["environment"].drop_duplicates():
        for name, value in json.loads(text).items():
            shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            if shown not in entries.setdefault(name, []):
                entries[name].append(shown)
    return {name: _joined(sorted(values)) for name, values in sorted(entries.items())}


def _joined(values: Sequence[str]) -> str:
    return "; ".join(values[:4]) + (f"; and {len(values) - 4} more" if len(values) > 4 else "")


def facts(table: pd.DataFrame) -> dict[str, str]:
    """The number of records, their dates, and how many of them are superseded."""
    dates = sorted(date for date in table["date"] if date)
    older = int(table["superseded"].sum())
    shown = {
        "records": f"{len(table)}"
        + (f", {older} of them superseded by newer ones of the same cell" if older else "")
    }
    if dates:
        shown["recorded"] = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return shown


HOW_TO_READ: tuple[tuple[str, str], ...] = (
    (
        "accuracy",
        "Share of clean test images that the victim classifies correctly after its last epoch, in "
        "%. Nothing is selected on test data.",
    ),
    (
        "mean over attacks",
        "Average accuracy over all attacks; clean data do not enter it. Defenses are ranked by it.",
    ),
    ("n", "Seeds in which the defense has a result for every attack; the mean's ± is over these."),
    ("worst attack", "The lowest accuracy among the attacks, and the attack it belongs to."),
    (
        "price on clean data",
        "Points of accuracy the defense costs where nobody attacked: undefended minus defended, "
        "both on clean data.",
    ),
    (
        "cost",
        "Seconds to purify and train, averaged over attacks, divided by those of undefended "
        "training on the same attacks; where it was run on none of them, on any data. They are "
        "CPU seconds, for which cores worked, or device seconds, by a GPU's clock; where a record "
        "of the group lacks these, wall seconds for all, which the machine's other work lengthens.",
    ),
    (
        "coverage",
        "How many of the attacks a defense has a result for. Without all of them, or without "
        "clean data where others have it, a defense has no rank; without all of them it has no "
        "mean and no worst attack either.",
    ),
    (
        "needs",
        "Privileges beyond the training images, such as clean images or pretrained weights. "
        "Defenses that have them are ranked apart.",
    ),
    (
        "±",
        "Standard deviation over seeds (n - 1). Where it is lacking there was one seed and there "
        "is no interval.",
    ),
    ("!", "A number in doubt: it means nothing, for the reason that stands above the table."),
    ("failed and -", "A failed cell was run without a result. An absent cell (-) was not run."),
)
