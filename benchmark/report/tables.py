"""Make the tables of a paper from the long table: by attack, by victim, by poison ratio.

Each table can also show published numbers beside ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.analysis.counterparts import Counterparts
from benchmark.analysis.doubts import at_chance, in_doubt
from benchmark.analysis.leaderboard import Summary, over_attacks
from benchmark.analysis.naming import parts_of
from benchmark.analysis.table import GROUP, sharing
from benchmark.report.numbers import ABSENT
from benchmark.report.published_cells import Line, SourceLines, Where, sources
from benchmark.report.typeset import Block, Entry, Mark, PaperTable, accuracy, best_two

if TYPE_CHECKING:
    import pandas as pd


NORMS = {
    "linf": "L∞",
    "l2": "L2",
    "l0": "L0",
    "none": "no bound",
    "mixed": "mixed",
    "unknown": "norm unknown",
}

CLEAN, MEAN = "clean data", "mean"


def paper_tables(
    summary: Summary, norms: Mapping[str, str], counterparts: Sequence[Counterparts] = ()
) -> list[PaperTable]:
    """Every table that the long table has data for.

    The tables are named ``attacks``, ``victims`` and ``ratios``; further ones of a kind are named
    ``attacks-2`` and so on.

    - ``attacks``: for each group, attacks as rows under their norms, defenses as columns, with
      means over each norm and over all attacks.
    - ``victims``: defenses under attacks as rows, victims as columns, if two or more victims share
      data set, protocol and poison ratio.
    - ``ratios``: the same with poison ratios as columns; ratio 0 is clean data.

    A defense has a mean over attacks only if it has a result for every one of them. Best and second
    are marked among the defenses without privileges, and separately among those with privileges
    (†); the undefended one is never marked.

    For every source of published numbers that has some of the cells, there is a second table,
    ``attacks-SOURCE`` and so on, with lines for the published accuracy, the difference and what is
    not the same. Published numbers are part of no mean and are never marked.

    Args:
        summary: summary of the long table.
        norms: an attack's registered name -> linf, l2, l0 or none. If empty, rows are not grouped
            by norm.
        counterparts: published numbers that correspond to cells of ``summary``.
    """
    cells = _Cells(summary, norms)
    made: list[PaperTable | None] = []
    for source in (None, *sources(counterparts)):
        shown = SourceLines(source)
        groups = [
            _attack_table(cells, where, norms, _numbered("attacks", index), shown)
            for index, where in enumerate(cells.wheres)
        ]
        made += [
            *groups,
            *_axis_tables(cells, "victims", shown),
            *_axis_tables(cells, "ratios", shown),
        ]
    return [table for table in made if table is not None]


def norm_of(spec: str, facts: str, norms: Mapping[str, str]) -> str:
    """The norm of an attack's budget: linf, l2, l0, none, ``mixed`` or ``unknown``.

    The norm may depend on parameters, so the facts of the poison are read first. If they do not
    name it, ``norms`` does.

    Args:
        spec, facts: JSON texts of the record.
        norms: an attack's registered name -> its norm.
    """
    noted = json.loads(facts).get("poison", {}).get("norm")
    if noted in NORMS:
        return str(noted)
    parts = [norms.get(part.get("name", ""), "unknown") for part in parts_of(json.loads(spec))]
    of_parts = {norm if norm in NORMS else "unknown" for norm in parts}
    if len(of_parts) > 1:
        return "mixed"
    return of_parts.pop() if of_parts else "unknown"


class _Cells:
    """The numbers of the tables, by place."""

    def __init__(self, summary: Summary, norms: Mapping[str, str]) -> None:
        cells, runs = summary.cells, summary.runs
        runs = runs[~runs["is_clean"]]
        names = (*GROUP, "attack", "defense", "mean", "std", "n", "failed")
        self.cells: dict[tuple[Where, str, str], Entry] = {}
        self.doubts = summary.doubts
        doubted = {
            (where, *cell) for where, found in self.doubts.items() for cell in in_doubt(found)
        }
        for values in zip(*(cells[name].tolist() for name in names), strict=True):
            where, (attack, defense, *numbers) = values[: len(GROUP)], values[len(GROUP) :]
            is_doubted = (where, attack, defense) in doubted
            self.cells[where, attack, defense] = accuracy(*numbers, doubted=is_doubted)
        self.wheres = sorted({where for where, _, _ in self.cells})
        self.clean = set(cells.loc[cells["is_clean"], "attack"])
        self.undefended = set(cells.loc[cells["is_undefended"], "defense"])
        self.sharing = sharing(summary.runs)
        self.needs = set(cells.loc[cells["needs"] != "", "defense"])
        self.norms = {
            attack: norm_of(spec, facts, norms)
            for attack, spec, facts in runs.drop_duplicates("attack")[
                ["attack", "attack_spec", "facts"]
            ].itertuples(index=False)
        }
        self.means = {"": _means(runs, doubted)}
        if norms:
            shown = runs["attack"].map(self.norms)
            self.means |= {norm: _means(runs[shown == norm], doubted) for norm in set(shown)}

    def at(self, where: Where, attack: str, defense: str) -> Entry:
        return self.cells.get((where, attack, defense), accuracy(math.nan, math.nan, 0, 0))

    def mean(self, where: Where, norm: str, defense: str) -> Entry:
        """The mean over the attacks of ``norm``, or over all attacks if it is empty."""
        return self.means[norm].get((where, defense), accuracy(math.nan, math.nan, 0, 0))

    def shared_mean(self, where: Where, attacks: Sequence[str], defense: str) -> Entry:
        """The mean over ``attacks``.

        It is absent if ``where`` has other attacks, since such means could not be compared.
        """
        if self.attacks([where]) == attacks:
            return self.mean(where, "", defense)
        return accuracy(math.nan, math.nan, 0, 0)

    def attacks(self, wheres: Iterable[Where]) -> list[str]:
        """The attacks of these groups in alphabetical order, without clean data."""
        wheres = set(wheres)
        return sorted({attack for where, attack, _ in self.cells if where in wheres} - self.clean)

    def cleans(self, wheres: Iterable[Where]) -> list[str]:
        wheres = set(wheres)
        return sorted({attack for where, attack, _ in self.cells if where in wheres} & self.clean)

    def defenses(self, wheres: Iterable[Where]) -> list[str]:
        """The defenses of these groups: the undefended one first, those with privileges last."""
        wheres = set(wheres)
        names = {defense for where, _, defense in self.cells if where in wheres}
        return sorted(
            names, key=lambda name: (name not in self.undefended, name in self.needs, name)
        )

    def teams(self, defenses: Sequence[str], wheres: Iterable[Where]) -> list[int | None]:
        """The team of each defense, within which the best are marked; None for one never marked.

        Where a victim learned nothing on clean data, nothing is marked.
        """
        if any(at_chance(self.doubts[where]) for where in wheres):
            return [None] * len(defenses)
        return [None if name in self.undefended else int(name in self.needs) for name in defenses]

    def whys(self, wheres: Iterable[Where]) -> list[str]:
        """Why numbers of these groups are in doubt."""
        return list(dict.fromkeys(doubt.why for where in wheres for doubt in self.doubts[where]))

    def titles(self, defenses: Sequence[str]) -> tuple[str, ...]:
        return tuple(name + (" †" if name in self.needs else "") for name in defenses)


def _means(
    runs: pd.DataFrame, doubted: Collection[tuple[Where, str, str]]
) -> dict[tuple[Where, str], Entry]:
    over = over_attacks(runs).reset_index()
    attacks = set(runs["attack"])
    rows = {(where, defense) for where, attack, defense in doubted if attack in attacks}
    return {
        (where, defense): accuracy(mean, std, n, 0, doubted=(where, defense) in rows)
        for *group, defense, mean, std, n in zip(
            *(over[name].tolist() for name in (*GROUP, "defense", "mean", "std", "n")), strict=True
        )
        for where in (tuple(group),)
    }


def _attack_table(
    cells: _Cells, where: Where, norms: Mapping[str, str], name: str, shown: SourceLines
) -> PaperTable | None:
    """A table with attacks as rows, under their norms if known, and defenses as columns.

    None if ``shown`` has no published number for this group.
    """
    if not shown.has([where]):
        return None
    defenses, attacks = cells.defenses([where]), cells.attacks([where])
    teams = cells.teams(defenses, [where])

    def lines(label: str, attack: str) -> list[Line]:
        ours = _marked([cells.at(where, attack, defense) for defense in defenses], teams)
        return shown.lines(label, ours, [(where, attack, defense) for defense in defenses])

    def means(label: str, norm: str) -> list[Line]:
        return shown.lines(
            label, _marked([cells.mean(where, norm, defense) for defense in defenses], teams), []
        )

    grouped = {"": attacks}
    if norms:
        grouped = {norm: [name for name in attacks if cells.norms[name] == norm] for norm in NORMS}
    grouped = {norm: members for norm, members in grouped.items() if members}
    blocks = [Block("", tuple(lines(CLEAN, clean))) for clean in cells.cleans([where])]
    for norm, members in grouped.items():
        below = means(MEAN, norm) if len(grouped) > 1 and len(members) > 1 else []
        blocks.append(
            Block(
                NORMS.get(norm, ""),
                (*(line for attack in members for line in lines(attack, attack)), *below),
            )
        )
    if len(attacks) > 1:
        blocks.append(Block("", tuple(means(f"{MEAN} over attacks", ""))))
    dataset, victim, protocol, ratio, preset = where
    return PaperTable(
        shown.named(name),
        _caption(
            f"on {dataset}, victim {victim}, protocol {protocol}{_ratio(ratio)}{_preset(preset)}",
            blocks,
            "row",
            cells.sharing,
        ),
        ("norm", "attack") if norms else ("attack",),
        cells.titles(defenses),
        tuple(f"{defense} {number}" for defense in defenses for number in shown.values),
        tuple(blocks),
        (
            *_notes(blocks, cells.needs.intersection(defenses), cells.whys([where])),
            *shown.notes([where]),
        ),
    )


def _axis_tables(cells: _Cells, axis: str, shown: SourceLines) -> list[PaperTable | None]:
    """Tables with the values of one axis of ``Where`` as columns.

    There is a table for each choice of the other axes that has two or more values of this one.
    """
    at = {"victims": 1, "ratios": 3}[axis]
    families: dict[tuple[Any, ...], list[Where]] = {}
    for where in cells.wheres:
        families.setdefault((*where[:at], *where[at + 1 :]), []).append(where)
    wanted = [family for family in families.values() if len(family) > 1 and cells.attacks(family)]
    return [
        _axis_table(cells, axis, family, _numbered(axis, index), shown)
        for index, family in enumerate(wanted)
    ]


def _axis_table(
    cells: _Cells, axis: str, family: Sequence[Where], name: str, shown: SourceLines
) -> PaperTable | None:
    """A table with defenses under each attack as rows.

    The victims or the poison ratios of ``family`` are the columns.
    """
    if not shown.has(family):
        return None
    defenses, attacks, cleans = cells.defenses(family), cells.attacks(family), cells.cleans(family)
    teams = cells.teams(defenses, family)
    dataset, victim, protocol, ratio, preset = family[0]
    if axis == "victims":
        columns = [where[1] for where in family]
        of = f"protocol {protocol}{_ratio(ratio)}{_preset(preset)}, by victim"
    else:
        columns = [f"{where[3]:g}" for where in family]
        of = f"victim {victim}, protocol {protocol}{_preset(preset)}, by poison ratio"
    clean_first = axis == "ratios" and bool(cleans)
    if clean_first:
        columns.insert(0, "0 (clean)")

    def block(
        title: str, entry: Callable[[Where, Any, str], Entry], of: str | Sequence[str]
    ) -> Block:
        down = [[entry(where, of, defense) for defense in defenses] for where in family]
        if clean_first:
            down.insert(0, [cells.at(family[0], cleans[0], defense) for defense in defenses])
        lines: list[Line] = []
        for defense, label, ours in zip(
            defenses,
            cells.titles(defenses),
            zip(*(_marked(entries, teams) for entries in down), strict=True),
            strict=True,
        ):
            places = [(where, of, defense) for where in family] if isinstance(of, str) else []
            if clean_first and places:
                places.insert(0, (family[0], cleans[0], defense))
            lines += shown.lines(label, ours, places)
        return Block(title, tuple(lines))

    blocks = [block(CLEAN, cells.at, clean) for clean in cleans if not clean_first]
    blocks += [block(attack, cells.at, attack) for attack in attacks]
    if len(attacks) > 1:
        blocks.append(block(f"{MEAN} over attacks", cells.shared_mean, attacks))
    return PaperTable(
        shown.named(name),
        _caption(f"on {dataset}, {of}", blocks, "column of an attack", cells.sharing),
        ("attack", "defense"),
        tuple(columns),
        tuple(f"{column} {number}" for column in columns for number in shown.values),
        tuple(blocks),
        (
            *_notes(blocks, cells.needs.intersection(defenses), cells.whys(family)),
            *shown.notes(family),
        ),
    )


def _marked(entries: Sequence[Entry], teams: Sequence[int | None]) -> tuple[Entry, ...]:
    marks: list[Mark] = best_two([float(entry.values[0] or "nan") for entry in entries], teams)
    return tuple(entry.marked(mark) for entry, mark in zip(entries, marks, strict=True))


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}-{index + 1}"


def _ratio(ratio: float) -> str:
    return "" if ratio == 1 else f", poison ratio {ratio:g}"


def _preset(preset: str) -> str:
    return f", preset {preset}" if preset else ""


def _caption(what: str, blocks: Sequence[Block], line: str, shared: str) -> str:
    entries = [
        entry for block in blocks for _, entries in block.lines for entry in entries if entry.values
    ]
    counts = sorted({int(entry.values[2]) for entry in entries} - {0})
    if not counts:
        spread = "nothing has finished"
    elif counts == [1]:
        spread = "one seed"
    else:
        seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        spread = f"mean ± standard deviation over {seeds} seeds{shared}"
    marks = ""
    if any(entry.mark for entry in entries):
        marks = f" Best defense of each {line} in bold, second underlined."
    return f"Test accuracy in % {what}; {spread}.{marks}"


def _notes(
    blocks: Sequence[Block], with_needs: Collection[str], whys: Sequence[str]
) -> tuple[str, ...]:
    """Explain every sign that the table shows, and no other."""
    texts = {
        entry.text
        for block in blocks
        for _, entries in block.lines
        for entry in entries
        if entry.values
    }
    notes = {
        "Dagger: needs clean data or pretrained weights; such defenses are compared among "
        "themselves.": bool(with_needs),
        "Star: some seeds failed; the number is that of the others.": any(
            text.endswith("*") for text in texts
        ),
        f"Exclamation mark: the number means nothing. {' '.join(whys)}": bool(whys),
        "Failed: was run without a result.": "failed" in texts,
        "Dash: was not run, or is a mean over attacks of which one is lacking.": ABSENT in texts,
    }
    return tuple(note for note, shown in notes.items() if shown)
