"""Compare two defenses from records: paired differences, intervals, a sign-flip test.

Nothing is read or written here.

Pure: nothing is read or written here.

Pairs share attack, victim seed and craft seed. The two victims of a pair began with the same
weights and saw the images in the same order, so much of what differs between seeds cancels.
Accuracies are in [0, 1]; differences and prices are in points (100 x accuracy), ours minus the
reference, so that positive is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from benchmark.analysis.statistics.paired import TINY, SignFlip, bca_interval, sign_flip
from benchmark.analysis.table import GROUP, RUN, caveats, comparable

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05

MARGIN = 0.5  # points; the standard error of one accuracy of 80 % on 10,000 test images is 0.4

FEWEST_FOR_INTERVAL = (
    3  # of two differences, a bootstrap interval is just the range, which covers half the time
)

COVERAGE = {
    3: 72,
    4: 79,
    5: 84,
    6: 85,
    7: 87,
    8: 88,
    9: 89,
}  # %, of the 95 % interval by number of normal differences; measured

Outcome = Literal["win", "tie", "loss", "undecided"]

Conclusion = Literal[
    "better", "worse", "ahead", "behind", "small", "depends", "not shown", "too little", "nothing"
]


@dataclass(frozen=True)
class Contrast:
    """Ours beside the reference in one column: an attack, the clean data, or the mean over attacks.

    Attributes:
        column: its name.
        undefended, ours, reference: mean accuracies over the pairs, in [0, 1]; NaN where there is
            none.
        points: the paired differences, in points.
        difference: their mean; NaN without a pair.
        interval: 95 % BCa interval of the difference, in points, or None.
        remark: why there is no interval, or no pair; empty where there is an interval.
        seeds: how many different victim seeds the pairs have.
        apart: both defenses have results here, but no two of them share victim seed and craft seed.
    """

    column: str
    undefended: float
    ours: float
    reference: float
    points: tuple[float, ...]
    difference: float
    interval: tuple[float, float] | None
    remark: str
    seeds: int
    apart: bool = False

    @property
    def outcome(self) -> Outcome:
        """A tie is a difference below ``MARGIN``, or one whose interval covers 0.

        Too few pairs for an interval leave it undecided.

        Where all differences are equal there is no interval, and their value decides.
        """
        if len(self.points) < FEWEST_FOR_INTERVAL:
            return "undecided"
        low, high = self.interval or (self.difference, self.difference)
        if abs(self.difference) < MARGIN or low <= 0 <= high:
            return "tie"
        return "win" if self.difference > 0 else "loss"


@dataclass(frozen=True)
class Comparison:
    """Two defenses within one group of comparable results.

    A group is a data set, a victim, a protocol, a poison ratio and a preset of attacks.

    Attributes:
        attacks: one contrast an attack, in alphabetical order; those without a pair too.
        mean: over the attacks that have pairs; its ``points`` are one a seed, if every seed has
            every attack.
        clean: on clean data.
        price_ours, price_reference: undefended minus defended on clean data, in points; NaN where
            it is not known.
        seconds_ours, seconds_reference: wall seconds to purify and train, mean over the pairs; NaN
            where not recorded.
        by_pair: the sign-flip test of ``mean.difference``, each pair for itself.
        by_seed: the same with all pairs of a victim seed flipped together, since attacks of one
            seed may share its luck.
        seeds, craft_seeds: how many different ones the pairs have.
        notes: what else a reader must know, as sentences.
    """

    dataset: str
    victim: str
    protocol: str
    ratio: float
    preset: str
    ours: str
    reference: str
    attacks: tuple[Contrast, ...]
    mean: Contrast
    clean: Contrast
    price_ours: float
    price_reference: float
    seconds_ours: float
    seconds_reference: float
    by_pair: SignFlip
    by_seed: SignFlip
    seeds: int
    craft_seeds: int
    notes: tuple[str, ...]

    @property
    def compared(self) -> int:
        """The number of attacks that have a pair."""
        return sum(bool(contrast.points) for contrast in self.attacks)

    @property
    def cost_ratio(self) -> float:
        """Seconds of ours per second of the reference; NaN where either is not known."""
        return (
            self.seconds_ours / self.seconds_reference if self.seconds_reference > 0 else math.nan
        )

    @property
    def pairs(self) -> int:
        return self.by_pair.units

    def of(self, outcome: Outcome) -> list[str]:
        """The attacks with this outcome."""
        return [
            contrast.column
            for contrast in self.attacks
            if contrast.points and contrast.outcome == outcome
        ]

    @property
    def conclusion(self) -> Conclusion:
        """What the records show.

        A difference counts as shown if every test that can be decided has p < ``ALPHA``.

        ``small`` is one that is shown but below ``MARGIN``; ``depends``, one that is not, with wins
        and losses. ``better`` and ``worse`` take enough seeds for the test of whole ones. With
        fewer, the test takes the pairs of a seed as independent, and calls equal defenses different
        far too often where they are not (docs/compare.md): then it is only ``ahead`` or ``behind``.
        """
        if not self.compared:
            return "nothing"
        if not self.by_pair.decidable:
            return "too little"
        if any(
            test.p >= ALPHA for test in (self.by_pair, self.by_seed)
        ):  # NaN, not decidable, is not >=
            return "depends" if self.of("win") and self.of("loss") else "not shown"
        if abs(self.mean.difference) < MARGIN:
            return "small"
        if not self.by_seed.decidable:
            return "ahead" if self.mean.difference > 0 else "behind"
        return "better" if self.mean.difference > 0 else "worse"


def comparisons(table: pd.DataFrame, ours: str, reference: str) -> list[Comparison]:
    """Compares two defenses in each group of the long table (``table.to_table``).

    ``ours`` and ``reference`` are labels of its defenses.
    """
    return [_compare(part, ours, reference) for _, part in comparable(table).groupby(GROUP)]


def _compare(part: pd.DataFrame, ours: str, reference: str) -> Comparison:
    """``part`` holds the rows of one group, each (attack, defense, seed, craft seed) once."""
    both = part["defense"].isin([ours, reference])
    acc = _side_by_side(part, part["test_acc"], ours, reference)
    paired = acc.dropna(subset=["ours", "reference"])
    # a craft seed that changed nothing makes no further pair
    same = paired.reset_index().duplicated(["attack", "seed", "ours", "reference", "undefended"])
    paired = paired[~same.to_numpy()]
    clean_names = set(part.loc[part["is_clean"], "attack"])
    names = sorted(set(part.loc[both, "attack"]) - clean_names)
    attacks = tuple(
        _contrast(name, paired, _lacking(part, name, ours, reference)) for name in names
    )
    clean_name = min(clean_names, default="")
    clean = replace(
        _contrast(clean_name, paired, _lacking(part, clean_name, ours, reference)),
        column="clean data",
    )

    pairs = paired[paired.index.get_level_values("attack").isin(names)]
    by_attack = pairs.groupby("attack")["points"]
    shares = (
        pairs["points"] / by_attack.transform("size") / max(by_attack.ngroups, 1)
    )  # they add up to the mean over attacks
    seconds = part["seconds_purify"].fillna(0) + part["seconds_train"]
    cost = (
        _side_by_side(part, seconds, ours, reference)
        .loc[pairs.index]
        .dropna(subset=["ours", "reference"])
        .mean()
    )
    on_clean = acc[acc.index.get_level_values("attack") == clean_name]
    dataset, victim, protocol, ratio, preset = part[GROUP].iloc[0]
    return Comparison(
        dataset=str(dataset),
        victim=str(victim),
        protocol=str(protocol),
        ratio=float(ratio),
        preset=str(preset),
        ours=ours,
        reference=reference,
        attacks=attacks,
        mean=_mean(attacks, pairs),
        clean=clean,
        price_ours=100 * float((on_clean["undefended"] - on_clean["ours"]).mean()),
        price_reference=100 * float((on_clean["undefended"] - on_clean["reference"]).mean()),
        seconds_ours=float(cost["ours"]),
        seconds_reference=float(cost["reference"]),
        by_pair=sign_flip(shares.tolist()),
        by_seed=sign_flip(shares.groupby("seed").sum().tolist()),
        seeds=_seeds(pairs),
        craft_seeds=pairs.index.get_level_values("craft_seed").nunique(),
        notes=tuple(_notes(part[both], attacks)),
    )


def _side_by_side(
    part: pd.DataFrame, values: pd.Series[float], ours: str, reference: str
) -> pd.DataFrame:
    """The ``values`` of both defenses by (attack, seed, craft seed).

    Columns: ``ours``, ``reference``, ``undefended``, and the difference ``points``.
    """
    wide = part.assign(value=values).set_index(["attack", *RUN, "defense"])["value"].unstack()
    undefended = min(part.loc[part["is_undefended"], "defense"], default="")
    wide = wide.reindex(columns=[ours, reference, undefended]).set_axis(
        ["ours", "reference", "undefended"], axis=1
    )
    return wide.assign(points=100 * (wide["ours"] - wide["reference"]))


def _contrast(attack: str, paired: pd.DataFrame, lacking: str) -> Contrast:
    rows = paired[paired.index.get_level_values("attack") == attack]
    mean, points = rows.mean(), tuple(rows["points"].tolist())
    interval, remark = _interval(points)
    undefended, our, other, difference = (
        float(mean[name]) for name in ("undefended", "ours", "reference", "points")
    )
    apart = not points and not lacking
    remark = lacking or (
        "no pair: no result of one shares victim seed and craft seed with one of the other"
        if apart
        else remark
    )
    return Contrast(
        attack, undefended, our, other, points, difference, interval, remark, _seeds(rows), apart
    )


def _seeds(pairs: pd.DataFrame) -> int:
    return int(pairs.index.get_level_values("seed").nunique())


def _mean(attacks: Sequence[Contrast], pairs: pd.DataFrame) -> Contrast:
    """The mean over the attacks that have pairs.

    A seed that lacks one of them would change what is averaged, so then no seed counts.
    """
    known = [contrast for contrast in attacks if contrast.points]

    def average(name: str) -> float:
        return fmean(getattr(contrast, name) for contrast in known) if known else math.nan

    by_seed = pairs.groupby(RUN)["points"]
    whole = bool((by_seed.size() == len(known)).all())
    points = tuple(by_seed.mean().tolist()) if whole else ()
    interval, remark = (
        _interval(points) if whole else (None, "no interval: not every seed has every attack")
    )
    means = (average("undefended"), average("ours"), average("reference"))
    return Contrast(
        "mean over attacks", *means, points, average("difference"), interval, remark, _seeds(pairs)
    )


def _interval(points: Sequence[float]) -> tuple[tuple[float, float] | None, str]:
    """The interval, or None and why."""
    n = len(points)
    if n < FEWEST_FOR_INTERVAL:
        return (
            None,
            f"no interval: {n} pair{'s' * (n != 1)}, and at least {FEWEST_FOR_INTERVAL} are needed",
        )
    if max(points) - min(points) < TINY:
        return (
            None,
            f"no interval: all {n} differences are equal, so that resampling shows no spread",
        )
    return bca_interval(points), ""


def _lacking(part: pd.DataFrame, attack: str, *defenses: str) -> str:
    """Says which of the defenses have no result for this attack, and why.

    Empty if all have one.
    """
    found = []
    for defense in defenses:
        status = part.loc[(part["attack"] == attack) & (part["defense"] == defense), "status"]
        if not (status == "ok").any():
            found.append(f"{defense} {'was not run' if status.empty else 'failed'}")
    return f"no pair: {', '.join(found)}" if found else ""


def _notes(rows: pd.DataFrame, attacks: Sequence[Contrast]) -> list[str]:
    """``rows`` are those of the two defenses."""
    notes = []
    for contrast in attacks:
        seeds = len(rows.loc[rows["attack"] == contrast.column, RUN].drop_duplicates())
        if contrast.apart or 0 < len(contrast.points) < seeds:
            notes.append(
                f"On {contrast.column}, {len(contrast.points)} of {seeds} seeds have a result of "
                "both defenses."
            )
    for defense, needs in rows.groupby("defense")["needs"].first().items():
        if needs:
            notes.append(f"{defense} needs {needs}.")
    notes += caveats(rows)
    return notes
