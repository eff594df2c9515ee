"""Aggregate the long table: cells over seeds, defenses over attacks."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from benchmark.analysis.doubts import Chance, Doubt, at_chance, chance, doubts
from benchmark.analysis.table import (
    CELL,
    GROUP,
    RUN,
    comparable,
    cost_clock,
    draws,
    purify_and_train,
)

if TYPE_CHECKING:
    import pandas as pd

Group = tuple[Any, ...]  # the values of ``table.GROUP``


class Summary:
    """A long table and the frames computed from it, each once and on first use.

    All callers share these frames: copy one before changing it.

    Attributes:
        table: what ``to_table`` returns.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The rows that count; see ``table.comparable``."""
        return comparable(self.table)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell; see ``grid``."""
        return _grid(self.runs)

    @cached_property
    def doubts(self) -> dict[Group, tuple[Doubt, ...]]:
        """What means nothing in each group, and why; see ``doubts.doubts``."""
        return {group: doubts(rows) for group, rows in self.runs.groupby(GROUP)}

    @cached_property
    def chances(self) -> dict[Group, Chance | None]:
        """What a guesser reaches in each group; see ``doubts.chance``."""
        return {group: chance(rows) for group, rows in self.runs.groupby(GROUP)}

    @cached_property
    def board(self) -> pd.DataFrame:
        """One row a defense of each group; see ``leaderboard``."""
        empty = [group for group, found in self.doubts.items() if at_chance(found)]
        return _leaderboard(self.runs, self.cells, empty)


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """Aggregate the long table to one row a cell, over its seeds.

    The first columns name the cell: ``dataset``, ``victim``, ``protocol``, ``ratio``, ``preset``,
    ``attack``, ``defense``. The others are ``is_clean``, ``is_undefended``, ``needs``; ``mean``,
    ``std`` (ddof=1; NaN for one seed), ``n`` (seeds that finished, see ``draws``), ``failed``
    (seeds that did not), ``peak_oracle``, ``seconds_purify``, ``seconds_train`` (means of wall
    time).

    Clean data have no poison ratio and no preset. Their cells appear at each poison ratio and
    preset at which the same victim faces attacks.
    """
    return Summary(table).cells


def _grid(runs: pd.DataFrame) -> pd.DataFrame:
    cells = draws(runs).groupby(CELL, sort=True).agg(
        is_clean=("is_clean", "first"),
        is_undefended=("is_undefended", "first"),
        needs=("needs", "first"),
        mean=("test_acc", "mean"),
        std=("test_acc", "std"),
        n=("test_acc", "count"),
        runs=("test_acc", "size"),
        peak_oracle=("peak_oracle", "mean"),
        seconds_purify=("seconds_purify", "mean"),
        seconds_train=("seconds_train", "mean"),
    )  # fmt: skip
    cells.insert(6, "failed", cells.pop("runs") - cells["n"])
    return cells.reset_index()


def leaderboard(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the defenses of each group (dataset, victim, protocol, ratio, preset), best first.

    Columns: the group; ``with_needs`` (defenses with privileges are ranked in a list of their own);
    ``rank`` (Int64, NA for none); ``defense``; ``is_undefended``; ``mean``, ``std``, ``n``:
    accuracy averaged over attacks, then over seeds; ``worst``, ``worst_attack``; ``clean``:
    accuracy on clean data; ``price_points``: undefended minus defended accuracy on clean data, in
    points; ``cost``: purify and train seconds, mean over attacks, as a multiple of undefended
    training on the same attacks and seeds; ``clock``: whose seconds these are
    (``table.cost_clock``); ``covered``: how many of the ``attacks`` have a result; ``missing``: the
    columns without a result, as ``em (failed), ops (absent)``; ``needs``.

    A defense without a result for every attack, and for clean data where the group has them, gets
    no rank. A defense that lacks an attack has neither mean nor worst attack, since these could not
    be compared. Where clean data taught the undefended victim nothing (``doubts.at_chance``), no
    defense has a rank. ``std`` is over the seeds that cover every attack, and ``n`` counts these
    seeds. The undefended row is a reference and is not ranked.
    """
    return Summary(table).board


def _leaderboard(runs: pd.DataFrame, cells: pd.DataFrame, empty: Collection[Group]) -> pd.DataFrame:
    """The frame of ``leaderboard``, in which the groups of ``empty`` have no ranks."""
    import pandas as pd

    if runs.empty:
        return pd.DataFrame(columns=[*GROUP, *_BOARD])
    runs_of, boards = dict(iter(runs.groupby(GROUP))), []
    for group, part in cells.groupby(GROUP):
        board = _board(part, runs_of[group], group not in empty)
        for column in GROUP:
            board[column] = part[column].iloc[0]
        boards.append(board[[*GROUP, *_BOARD]])
    return pd.concat(boards, ignore_index=True)


def over_attacks(runs: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy over the attacks of ``runs``, for each group and defense (the index).

    ``runs`` are rows of ``comparable``. Columns: ``mean``, the mean over attacks of the means over
    seeds, NaN where a defense lacks an attack of its group; ``std`` over the seeds that cover every
    attack; ``n``, the number of these seeds.
    """
    import pandas as pd

    if runs.empty:  # pandas cannot join empty frames whose texts pyarrow holds
        index = pd.MultiIndex.from_arrays(
            [[] for _ in [*GROUP, "defense"]], names=[*GROUP, "defense"]
        )
        return pd.DataFrame({"mean": [], "std": [], "n": []}, index=index)
    attacks = runs.groupby(GROUP)["attack"].nunique().rename("attacks")
    cells = (
        runs.groupby(CELL)["test_acc"]
        .mean()
        .groupby([*GROUP, "defense"])
        .agg(["mean", "count"])
        .join(attacks, on=GROUP)
    )
    seeds = (
        runs.groupby([*GROUP, "defense", *RUN])["test_acc"]
        .agg(["mean", "count"])
        .join(attacks, on=GROUP)
    )
    whole = seeds["mean"].where(seeds["count"] == seeds["attacks"]).groupby([*GROUP, "defense"])
    mean = cells["mean"].where(cells["count"] == cells["attacks"])
    return mean.to_frame().assign(std=whole.std(), n=whole.count())


_BOARD = [
    *("with_needs", "rank", "defense", "is_undefended", "mean", "std", "n", "worst"),
    *("worst_attack", "clean", "price_points", "cost", "clock", "covered", "attacks", "missing"),
    "needs",
]


def _board(cells: pd.DataFrame, runs: pd.DataFrame, ranked: bool) -> pd.DataFrame:
    """The leaderboard of one group, from its cells and its rows of the long table."""
    board = cells.groupby("defense")[["is_undefended", "needs"]].first()
    clean, attacked = cells[cells["is_clean"]], cells[~cells["is_clean"]]
    acc = attacked.pivot(index="defense", columns="attack", values="mean").reindex(
        index=board.index
    )
    # without attacks, the clean cells give the seeds and the cost
    faced = runs[~runs["is_clean"]] if acc.shape[1] else runs
    over = over_attacks(faced).reset_index(GROUP, drop=True)
    covers_all = acc.notna().all(axis=1) & bool(acc.shape[1])
    board["mean"] = over["mean"].where(covers_all)
    board["worst"] = acc.min(axis=1).where(covers_all)
    board["worst_attack"] = [
        str(acc.loc[name].idxmin()) if covers_all[name] else "" for name in acc.index
    ]
    board["std"] = over["std"] if acc.shape[1] else math.nan
    board["n"] = over["n"]
    board["n"] = board["n"].fillna(0).astype("int64")
    board["clean"] = clean.groupby("defense")["mean"].mean()
    board["price_points"] = 100 * _price(runs[runs["is_clean"]]).reindex(board.index)
    board["clock"] = clock = cost_clock(runs)
    board["cost"] = _cost(faced, runs, clock)
    board["covered"] = acc.notna().sum(axis=1).astype("int64")
    board["attacks"] = acc.shape[1]
    board["missing"] = _missing(cells, list(board.index))
    board["with_needs"] = board["needs"] != ""
    eligible = ranked & covers_all & ~board["is_undefended"] & (board["missing"] == "")
    board["rank"] = (
        board[eligible]
        .round({"mean": 9})
        .groupby("with_needs")["mean"]
        .rank(ascending=False, method="min")
        .astype("Int64")
    )
    board["rank"] = board["rank"].astype("Int64")
    board = board.reset_index().sort_values(
        ["with_needs", "is_undefended", "rank", "covered", "defense"],
        ascending=[True, True, True, False, True],
        na_position="last",
    )
    return board[_BOARD]


def _price(clean: pd.DataFrame) -> pd.Series[float]:
    """The accuracy on clean data that each defense costs: undefended minus defended.

    It is the mean over the seeds that both have, or over all seeds if they share none.
    """
    undefended = clean[clean["is_undefended"]].groupby(RUN)["test_acc"].mean()
    paired = clean.join(undefended.rename("undefended"), on=RUN)
    differences = paired["undefended"] - paired["test_acc"]
    rough = undefended.mean() - clean.groupby("defense")["test_acc"].mean()
    return differences.groupby(paired["defense"]).mean().fillna(rough)


def _cost(faced: pd.DataFrame, runs: pd.DataFrame, clock: str) -> pd.Series[float]:
    """Purify and train seconds of each defense by ``clock``, as a multiple of undefended training.

    Both means over attacks use only the attacks and seeds for which both have seconds. So the
    undefended row is 1, and a defense that was not run on the slow attacks, or on the slow machine,
    does not look cheap. Where there is no such pair, the seconds of the defense are divided by the
    mean of all undefended trainings, clean data included: a rough unit is better than no cost.
    """
    seconds = purify_and_train(runs, clock)
    undefended = runs.assign(unit=seconds)[runs["is_undefended"]]
    units = undefended.groupby(["attack", *RUN])["unit"].mean()
    ours = faced.assign(seconds=seconds).join(units, on=["attack", *RUN])
    pairs = (
        ours.dropna(subset=["seconds", "unit"])
        .groupby(["defense", "attack"])[["seconds", "unit"]]
        .mean()
        .groupby("defense")
        .mean()
    )
    over_all = ours.groupby(["defense", "attack"])["seconds"].mean().groupby("defense").mean()
    rough = over_all / _positive(float(undefended["unit"].mean()))
    return (pairs["seconds"] / pairs["unit"].map(_positive)).reindex(rough.index).fillna(rough)


def _positive(seconds: float) -> float:
    return seconds if seconds > 0 else math.nan


def _missing(cells: pd.DataFrame, defenses: list[str]) -> list[str]:
    """The columns of the group that each defense lacks, as ``em (failed), ops (absent)``."""
    n = cells.pivot(index="defense", columns="attack", values="n")
    lacking: dict[str, list[str]] = {defense: [] for defense in defenses}
    for attack in sorted(n.columns):
        for defense, finished in n[attack].items():
            if not finished > 0:
                lacking[str(defense)].append(
                    f"{attack} ({'absent' if math.isnan(finished) else 'failed'})"
                )
    return [", ".join(lacking[defense]) for defense in defenses]
