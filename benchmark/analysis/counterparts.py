"""Pair published accuracies with measured ones of the same methods.

``find_counterparts`` makes the pairs, says what was done differently, and tests whether published
and measured numbers order the defenses alike. It never averages a published and a measured number.
The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.naming import shown_value
from benchmark.analysis.published import Published
from benchmark.analysis.statistics.agreement import (
    Tau,
    discordant,
    tau_cells,
    tau_over,
    tau_within,
)
from benchmark.analysis.table import GROUP
from benchmark.catalogue.registry import Card
from benchmark.catalogue.spec import Spec, did_you_mean, parse_spec, parse_value

if TYPE_CHECKING:
    import pandas as pd

Cards = Mapping[str, Mapping[str, Card]]  # kind -> name -> the registry's card of the method


@dataclass(frozen=True)
class Pair:
    """A published accuracy and the measured one of the same methods.

    Attributes:
        attack, defense: our labels.
        mean, std, n, failed: measured, as in ``leaderboard.grid``.
        differs: names of the settings in which the two differ, for example ``victim``;
            ``Counterparts.differences`` explains them.
    """

    attack: str
    defense: str
    published: Published
    mean: float
    std: float
    n: int
    failed: int
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Counterparts:
    """The pairs of one source and one group of measured cells.

    Attributes:
        source: key of the source, such as ``bridgepure2025``.
        dataset, victim, protocol, ratio, preset: labels of our group.
        pairs: clean data and the undefended victim first. A measured cell has as many pairs as the
            source prints numbers for it.
        differences: one sentence for each difference that ``Pair.differs`` names.
        cells, within, over: agreement of both orders (``tau_cells``, ``tau_within`` and
            ``tau_over`` of ``statistics.agreement``), without clean data and without the
            undefended victim.
        discordant: the pairs of cells in opposite order, the widest first; the first cell of each
            is ahead in ours and behind in the source.
    """

    source: str
    dataset: str
    victim: str
    protocol: str
    ratio: float
    preset: str
    pairs: tuple[Pair, ...]
    differences: tuple[str, ...]
    cells: Tau
    within: Tau
    over: Tau
    discordant: tuple[tuple[Pair, Pair], ...]


def find_counterparts(
    summary: Summary, published: Iterable[Published], wanted: str, cards: Cards | None = None
) -> list[Counterparts]:
    """Pair a source with each group of the long table whose data set it has.

    From the source, the rows of one victim and one poison ratio are used: those of our group if the
    source has them, else those with the most numbers. Nothing is averaged: a number that the source
    prints in two tables makes two pairs.

    Args:
        summary: summary of the long table.
        published: what ``load_published`` returns.
        wanted: a source, such as ``bridgepure2025``. With ``bridgepure2025[dataset=cifar10]`` the
            numbers of that data set are used, whatever our data set is called.
        cards: our methods, whose defaults are the published settings. Without them, settings other
            than the defaults are not reported.

    Raises:
        ValueError: for an unknown source or data set, or if none of its methods was measured.
    """
    spec, rows = parse_spec(wanted), list(published)
    if spec.name not in (known := sorted({row.source for row in rows})):
        raise ValueError(
            f'unknown source "{spec.name}" of published results{did_you_mean(spec.name, known)}'
        )
    rows = [row for row in rows if row.source == spec.name]
    datasets = sorted({row.dataset for row in rows})
    if set(spec.params) - {"dataset"}:
        raise ValueError(
            f'cannot read "{wanted}"; expected {spec.name}, or {spec.name}[dataset=NAME] with one '
            f"of {', '.join(datasets)}"
        )
    given = spec.params.get("dataset")
    if given is not None and given not in datasets:
        raise ValueError(
            f'{spec.name} has no data set "{given}"{did_you_mean(str(given), datasets)}'
        )
    cells = dict(iter(summary.cells.groupby(GROUP)))
    groups = [
        _Group(cells[where], runs, cards or {}) for where, runs in summary.runs.groupby(GROUP)
    ]
    by_group = [
        _counterparts_of(spec.name, group, group.chosen(rows, str(given or group.spec["name"])))
        for group in groups
    ]
    if not any(counterparts.pairs for counterparts in by_group):
        raise ValueError(
            f"nothing here has a counterpart in {spec.name}, which has the data sets "
            f"{', '.join(datasets)} and the attacks "
            f"{', '.join(sorted({row.attack for row in rows}))}; {spec.name}[dataset=NAME] takes "
            "one of them for a data set of another name"
        )
    return [counterparts for counterparts in by_group if counterparts.pairs]


def _counterparts_of(source: str, group: _Group, rows: Sequence[Published]) -> Counterparts:
    pairs = group.pairs(rows)
    shared: dict[tuple[str, str], Pair] = {}
    # the shortest labels come first, so that the plainest of several settings counts
    for pair in sorted(pairs, key=lambda pair: len(pair.attack) + len(pair.defense)):
        row = pair.published
        if row.attack != "none" and row.defense != "none":
            # the first of the source's tables counts
            shared.setdefault((row.attack, row.defense), pair)
    tables = (
        {cell: pair.mean for cell, pair in shared.items()},
        {cell: pair.published.mean for cell, pair in shared.items()},
    )
    return Counterparts(
        source,
        *(group.dataset, group.victim, group.protocol, group.ratio, group.preset),
        pairs,
        group.differences(pairs),
        *(tau_cells(*tables), tau_within(*tables), tau_over(*tables)),
        tuple((shared[ahead], shared[behind]) for ahead, behind in discordant(*tables)),
    )


class _Group:
    """The measured cells of one data set, victim, protocol, poison ratio and preset."""

    def __init__(self, cells: pd.DataFrame, runs: pd.DataFrame, cards: Cards) -> None:
        self.cells = cells.sort_values(
            ["is_clean", "attack", "is_undefended", "defense"], ascending=[False, True, False, True]
        )
        self.cards = cards
        self.dataset, self.victim, self.protocol, self.ratio, self.preset = (
            cells[GROUP].iloc[0].tolist()
        )
        self.attacks, self.defenses = (
            {
                label: json.loads(spec)
                for label, spec in zip(
                    runs[kind].tolist(), runs[f"{kind}_spec"].tolist(), strict=True
                )
            }
            for kind in ("attack", "defense")
        )
        self.spec = {"name": self.dataset, **json.loads(runs["dataset_spec"].iloc[0])}
        self.settings = json.loads(runs["protocol_spec"].iloc[0])

    def chosen(self, rows: Iterable[Published], dataset: str) -> list[Published]:
        """The rows of one data set, one victim and one poison ratio, and those of clean data."""
        rows = [row for row in rows if row.dataset == dataset]
        counts: dict[tuple[str, float], int] = {}
        for row in rows:
            counts[row.victim, row.ratio] = counts.get((row.victim, row.ratio), 0) + (row.ratio > 0)
        victim, ratio = max(
            counts,
            key=lambda key: (key[0] == self.victim, key[1] == self.ratio, counts[key]),
            default=("", 0.0),
        )
        return [row for row in rows if row.victim == victim and row.ratio in (0, ratio)]

    def pairs(self, rows: Sequence[Published]) -> tuple[Pair, ...]:
        """Pair each measured cell with each of ``rows`` that has the same methods."""
        columns = (
            self.cells[name].tolist()
            for name in ("attack", "defense", "mean", "std", "n", "failed")
        )
        return tuple(
            Pair(attack, defense, row, mean, std, n, failed, self._differs(row, attack, defense))
            for attack, defense, mean, std, n, failed in zip(*columns, strict=True)
            for row in rows
            if _stands_for(row.our_attack, self.attacks[attack])
            and _stands_for(row.our_defense, self.defenses[defense])
        )

    def _differs(self, row: Published, attack: str, defense: str) -> tuple[str, ...]:
        differences = {
            "data set": row.dataset != self.spec["name"] or bool(self.spec.get("train_per_class")),
            "victim": row.victim != self.victim,
            "epochs": row.epochs != self.settings.get("epochs"),
            "poison ratio": row.attack != "none" and row.ratio != self.ratio,
            "budget": bool(self._budget(row, attack)),
            "attack": bool(self._of_attack(row, attack)),
            "defense": bool(self._of_defense(row, defense)),
        }
        return tuple(name for name, differs in differences.items() if differs)

    def _budget(self, row: Published, attack: str) -> str:
        """A sentence with both budgets, if both are lengths and they differ; else empty."""
        ours, theirs = self.attacks[attack].get("params", {}).get("eps"), _length(row.budget)
        if theirs is None or ours is None or math.isclose(ours, theirs, rel_tol=1e-3):
            return ""
        return f"budget of {attack}: published {row.budget}, ours " + (
            f"{255 * ours:.3g}/255" if row.norm == "linf" else f"{ours:g}"
        )

    def _of_attack(self, row: Published, attack: str) -> str:
        omitted = {"eps"} if _length(row.budget) is not None else set()  # ``_budget`` reports it
        cards = self.cards.get("attack", {})
        return _other_settings(self.attacks[attack], row.our_attack, cards, omitted)

    def _of_defense(self, row: Published, defense: str) -> str:
        cards = self.cards.get("defense", {})
        return _other_settings(self.defenses[defense], row.our_defense, cards, set())

    def differences(self, pairs: Sequence[Pair]) -> tuple[str, ...]:
        """Describe every difference that a pair names, in a sentence each."""
        named = {name for pair in pairs for name in pair.differs}
        sentences: list[str] = []

        def say(name: str, theirs: Iterable[object], ours: object) -> None:
            if name in named:
                sentences.append(
                    f"{name}: published {' and '.join(dict.fromkeys(map(str, theirs)))}, ours "
                    f"{ours}"
                )

        per_class = self.spec.get("train_per_class")
        size = f", {per_class} training images a class" if per_class else ""
        say("data set", (pair.published.dataset for pair in pairs), f"{self.dataset}{size}")
        say("victim", (_victim(pair.published) for pair in pairs), self.victim)
        say(
            "epochs",
            (pair.published.epochs or "not printed" for pair in pairs),
            self.settings.get("epochs", "not recorded"),
        )
        say(
            "poison ratio",
            (f"{pair.published.ratio:g}" for pair in pairs if pair.published.ratio),
            f"{self.ratio:g}",
        )
        for pair in pairs:
            if unlike := self._of_attack(pair.published, pair.attack):
                sentences.append(f"attack {pair.attack}: ours has {unlike}")
            if unlike := self._of_defense(pair.published, pair.defense):
                sentences.append(f"defense {pair.defense}: ours has {unlike}")
            sentences.append(self._budget(pair.published, pair.attack))
        return tuple(text for text in dict.fromkeys(sentences) if text)


def _victim(row: Published) -> str:
    """The victim of a published row, with the notes on it.

    The notes say, for example, that the victim is inferred because the source does not print it.
    """
    noted = [phrase for phrase in row.notes.split("; ") if "victim" in phrase] if row.victim else []
    return (row.victim or "not printed") + (f" ({'; '.join(noted)})" if noted else "")


def _stands_for(wanted: Spec | None, spec: Mapping[str, Any] | None) -> bool:
    """Whether the recorded method ``spec`` is the one that ``wanted`` names.

    Parameters that ``wanted`` does not name may have any value.
    """
    if spec is None or wanted is None:
        return spec is None and wanted is None
    params = spec.get("params", {})
    same = all(
        name in params and _equal(params[name], value) for name, value in wanted.params.items()
    )
    return same and spec.get("name") == wanted.name and _stands_for(wanted.then, spec.get("then"))


def _other_settings(
    spec: Mapping[str, Any], wanted: Spec | None, cards: Mapping[str, Card], omitted: set[str]
) -> str:
    """The settings that are neither defaults nor ``wanted``, as ``epochs=6 (default 60)``.

    A version that is not today's comes first, as ``version 1 (now 3)``. Settings in ``omitted``
    are left out.
    """
    if wanted is None:
        return ""
    card, params = cards.get(spec["name"]), spec.get("params", {})
    defaults = card.defaults(params) if card else {}
    now, then = card.version if card else None, spec.get("version")
    older = [] if now is None or then in (None, now) else [f"version {then} (now {now})"]
    changed = [
        f"{name}={shown_value(value)} (default {shown_value(defaults[name])})"
        for name, value in params.items()
        if name in defaults
        and name not in omitted | set(wanted.params)
        and not _equal(value, defaults[name])
    ]
    after = _other_settings(spec["then"], wanted.then, cards, omitted) if wanted.then else ""
    return ", ".join([*older, *changed, *([after] if after else [])])


def _equal(a: object, b: object) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b  # type: ignore[arg-type]


def _length(budget: str) -> float | None:
    """A printed budget in [0, 1] units if it is a length such as 8/255; None for one like 1px."""
    try:
        value = parse_value(budget)
    except ValueError:
        return None
    return float(value) if isinstance(value, (int, float)) else None
