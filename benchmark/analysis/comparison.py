"""Compare two defenses from records: paired differences, intervals, a sign-flip test.

The two results of a pair share attack, victim seed and craft seed. Their victims began with the
same weights and saw the images in the same order, so that much of the difference between seeds
cancels. Accuracies are in [0, 1]. Differences and prices are in points (100 x accuracy), ours minus
the reference, so that positive is better. The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from benchmark.analysis.doubts import Doubt, doubts, in_doubt
from benchmark.analysis.statistics.paired import TINY, SignFlip, bca_interval, sign_flip
from benchmark.analysis.table import (
    GROUP,
    RUN,
    caveats,
    comparable,
    cost_clock,
    purify_and_train,
)

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05

MARGIN = 0.5  # points; the standard error of one accuracy of 80 % on 10,000 test images is 0.4

# From two differences a bootstrap interval is just their range, which covers half the time.
FEWEST_FOR_INTERVAL = 3

# Coverage in % of the 95 % interval by number of normal differences; measured.
COVERAGE = {3: 72, 4: 79, 5: 84, 6: 85, 7: 87, 8: 88, 9: 89}

Outcome = Literal["win", "tie", "loss", "undecided"]

Conclusion = Literal[
    "better",
    "worse",
    "ahead",
    "behind",
    "small",
    "depends",
    "not shown",
    "too little",
    "doubtful",
    "nothing",
]


@dataclass(frozen=True)
class Contrast:
    """Ours and the reference in one column: an attack, the clean data, or the mean over attacks.

    Attributes:
        column: name of the column.
        undefended, ours, reference: mean accuracies over the pairs, in [0, 1]; NaN without a pair.
        points: the paired differences, in points.
        difference: the mean of ``points``; NaN without a pair.
        interval: 95 % BCa interval of the difference, in points, or None.
        remark: why there is no interval, or no pair; empty where there is an interval.
        seeds: how many different victim seeds the pairs have.
        apart: both defenses have results here, but no two of them share victim seed and craft seed.
        doubted: which of the accuracies mean nothing, as names of these attributes.
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
    doubted: frozenset[str] = frozenset()

    @property
    def outcome(self) -> Outcome:
        """Whether ours wins in this column.

        A tie is a difference below ``MARGIN``, or one whose interval covers 0. Too few pairs for an
        interval, or a number in doubt, leave the outcome undecided. Where all differences are equal
        there is no interval, and their value decides.
        """
        if len(self.points) < FEWEST_FOR_INTERVAL or self.doubted & {"ours", "reference"}:
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
        attacks: one contrast an attack, in alphabetical order, including those without a pair.
        mean: the mean over the attacks that have pairs; ``points`` holds one value a seed, if every
            seed has every attack.
        clean: the contrast on clean data.
        price_ours, price_reference: undefended minus defended on clean data, in points; NaN where
            it is not known.
        seconds_ours, seconds_reference: to purify and train, mean over the pairs; NaN where not
            recorded.
        clock: whose seconds these are (``table.cost_clock``).
        by_pair: the sign-flip test of ``mean.difference`` that flips each pair by itself.
        by_seed: the test that flips all pairs of a victim seed together, since the attacks of one
            seed may share its luck.
        seeds, craft_seeds: how many different ones the pairs have.
        notes: what else a reader must know, as sentences.
        doubts: why results of the two defenses, or of the undefended victims, mean nothing.
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
    clock: str
    by_pair: SignFlip
    by_seed: SignFlip
    seeds: int
    craft_seeds: int
    notes: tuple[str, ...]
    doubts: tuple[Doubt, ...] = ()

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
        """The number of pairs over all attacks."""
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

        A difference counts as shown if every test that can be decided has p < ``ALPHA``. A shown
        difference below ``MARGIN`` is ``small``. If no difference is shown but there are wins and
        losses, the result ``depends`` on the attack. ``better`` and ``worse`` need enough seeds for
        the test by whole seeds. With fewer seeds the conclusion is only ``ahead`` or ``behind``:
        the test by pairs takes the pairs of a seed as independent, and where they are not, it calls
        equal defenses different far too often (docs/compare.md). Where a number of one of the two
        is in doubt, the conclusion is ``doubtful``, whatever the tests say.
        """
        if not self.compared:
            return "nothing"
        if any({"ours", "reference"} & contrast.doubted for contrast in (self.mean, self.clean)):
            return "doubtful"
        if not self.by_pair.decidable:
            return "too little"
        # p is NaN where a test cannot be decided, and NaN >= ALPHA is false
        if any(test.p >= ALPHA for test in (self.by_pair, self.by_seed)):
            return "depends" if self.of("win") and self.of("loss") else "not shown"
        if abs(self.mean.difference) < MARGIN:
            return "small"
        if not self.by_seed.decidable:
            return "ahead" if self.mean.difference > 0 else "behind"
        return "better" if self.mean.difference > 0 else "worse"


def comparisons(table: pd.DataFrame, ours: str, reference: str) -> list[Comparison]:
    """Compare two defenses in each group of the long table (``table.to_table``).

    ``ours`` and ``reference`` are labels of defenses in the table.
    """
    return [_compare(part, ours, reference) for _, part in comparable(table).groupby(GROUP)]


def _compare(part: pd.DataFrame, ours: str, reference: str) -> Comparison:
    """Compare two defenses in one group.

    ``part`` holds the rows of the group, each (attack, defense, seed, craft seed) once.
    """
    both = part["defense"].isin([ours, reference])
    sides = {"undefended": _undefended(part), "ours": ours, "reference": reference}
    found = doubts(part[part["defense"].isin(sides.values())])
    doubted = in_doubt(found)
    acc = _side_by_side(part, part["test_acc"], ours, reference)
    paired = acc.dropna(subset=["ours", "reference"])
    # results that another craft seed did not change are the same pair again
    same = paired.reset_index().duplicated(["attack", "seed", "ours", "reference", "undefended"])
    paired = paired[~same.to_numpy()]
    clean_names = set(part.loc[part["is_clean"], "attack"])
    names = sorted(set(part.loc[both, "attack"]) - clean_names)
    clean_name = min(clean_names, default="")
    *attacks, clean = (
        _contrast(
            name,
            paired,
            _lacking(part, name, ours, reference),
            {side for side, defense in sides.items() if (name, defense) in doubted},
        )
        for name in (*names, clean_name)
    )
    clean = replace(clean, column="clean data")

    pairs = paired[paired.index.get_level_values("attack").isin(names)]
    by_attack = pairs.groupby("attack")["points"]
    # the shares of all pairs add up to the mean over attacks
    shares = pairs["points"] / by_attack.transform("size") / max(by_attack.ngroups, 1)
    clock = cost_clock(part[both])
    cost = (
        _side_by_side(part, purify_and_train(part, clock), ours, reference)
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
        attacks=tuple(attacks),
        mean=_mean(attacks, pairs),
        clean=clean,
        price_ours=100 * float((on_clean["undefended"] - on_clean["ours"]).mean()),
        price_reference=100 * float((on_clean["undefended"] - on_clean["reference"]).mean()),
        seconds_ours=float(cost["ours"]),
        seconds_reference=float(cost["reference"]),
        clock=clock,
        by_pair=sign_flip(shares.tolist()),
        by_seed=sign_flip(shares.groupby("seed").sum().tolist()),
        seeds=_seeds(pairs),
        craft_seeds=pairs.index.get_level_values("craft_seed").nunique(),
        notes=tuple(_notes(part[both], attacks)),
        doubts=found,
    )


def _side_by_side(
    part: pd.DataFrame, values: pd.Series[float], ours: str, reference: str
) -> pd.DataFrame:
    """A frame of the ``values`` of both defenses, indexed by (attack, seed, craft seed).

    Columns: ``ours``, ``reference``, ``undefended``, and the difference ``points``.
    """
    wide = part.assign(value=values).set_index(["attack", *RUN, "defense"])["value"].unstack()
    wide = wide.reindex(columns=[ours, reference, _undefended(part)]).set_axis(
        ["ours", "reference", "undefended"], axis=1
    )
    return wide.assign(points=100 * (wide["ours"] - wide["reference"]))


def _undefended(part: pd.DataFrame) -> str:
    return str(min(part.loc[part["is_undefended"], "defense"], default=""))


def _contrast(
    attack: str, paired: pd.DataFrame, lacking: str, doubted: Collection[str]
) -> Contrast:
    rows = paired[paired.index.get_level_values("attack") == attack]
    mean, points = rows.mean(), tuple(rows["points"].tolist())
    interval, remark = _interval(points)
    undefended, our, other, difference = (
        float(mean[name]) for name in ("undefended", "ours", "reference", "points")
    )
    apart = not points and not lacking
    if apart:
        remark = "no pair: no result of one shares victim seed and craft seed with one of the other"
    elif lacking:
        remark = lacking
    means = (undefended, our, other)
    seeds = _seeds(rows)
    known = frozenset(doubted) if points else frozenset[str]()
    return Contrast(
        attack, *means, points, difference, interval, remark, seeds, apart, doubted=known
    )


def _seeds(pairs: pd.DataFrame) -> int:
    return int(pairs.index.get_level_values("seed").nunique())


def _mean(attacks: Sequence[Contrast], pairs: pd.DataFrame) -> Contrast:
    """The mean over the attacks that have pairs.

    Its points, one a seed, are given only if every seed has all these attacks: a seed that lacks
    one would average something else.
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
        "mean over attacks",
        *means,
        points,
        average("difference"),
        interval,
        remark,
        _seeds(pairs),
        doubted=frozenset[str]().union(*(contrast.doubted for contrast in known)),
    )


def _interval(points: Sequence[float]) -> tuple[tuple[float, float] | None, str]:
    """The BCa interval of the mean of ``points``, or None and the reason."""
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
    """Say which of the defenses have no result for this attack, and why.

    The text is empty if all have a result.
    """
    reasons = []
    for defense in defenses:
        status = part.loc[(part["attack"] == attack) & (part["defense"] == defense), "status"]
        if not (status == "ok").any():
            reasons.append(f"{defense} {'was not run' if status.empty else 'failed'}")
    return f"no pair: {', '.join(reasons)}" if reasons else ""


def _notes(rows: pd.DataFrame, attacks: Sequence[Contrast]) -> list[str]:
    """What a reader must know about the ``rows`` of the two defenses, as sentences."""
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
