"""Aggregate the long table: cells over seeds, defenses over attacks."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from benchmark.analysis.table import CELL, GROUP, RUN, comparable, draws

if TYPE_CHECKING:
    import pandas as pd


class Summary:
    """A long table and what is computed from it: each once, when it is first asked for.

    The frames are shared by all who ask: copy one before changing it.

    Attributes:
        table: what ``to_table`` returns.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The rows that count, as ``comparable`` returns them."""
        return comparable(self.table)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell, as ``grid`` returns them."""
        return _grid(self.runs)

    @cached_property
    def board(self) -> pd.DataFrame:
        """One row a defense, as ``leaderboard`` returns them."""
        return _leaderboard(self.runs, self.cells)


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """Aggregates the long table to one row a cell, over its seeds.

    A cell is (dataset, victim, protocol, ratio, preset, attack, defense).

    Columns beside these: ``is_clean``, ``is_undefended``, ``needs``; ``mean``, ``std`` (ddof=1; NaN
    for one seed), ``n`` (seeds that finished, see ``draws``), ``failed`` (seeds that did not),
    ``peak_oracle``, ``seconds_purify``, ``seconds_train`` (means).

    Clean data have no poison ratio and no preset: their cells appear at each at which the same
    victim faces attacks.
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
    """Ranks the defenses of each group (dataset, victim, protocol, ratio, preset), best first.

    Columns: the group; ``with_needs`` (defenses with privileges are ranked in a list of their own);
    ``rank`` (Int64, NA for none); ``defense``; ``is_undefended``; ``mean``, ``std``, ``n``:
    accuracy averaged over attacks, then over seeds; ``worst``, ``worst_attack``; ``clean``:
    accuracy on clean data; ``price_points``: clean undefended minus clean, in points; ``cost``:
    purify and train seconds, mean over attacks, per those of undefended training on the same
    attacks and seeds; ``covered`` of ``attacks`` attacks; ``missing``: what it lacks, as ``em
    (failed), ops (absent)``; ``needs``.

    A row that lacks a column, clean data included where the group has them, gets no rank. A row
    that lacks an attack has neither mean nor worst attack, since these could not be compared.
    ``std`` is over the seeds that cover every attack and ``n`` counts these. The undefended row is
    a reference and is not ranked.
    """
    return Summary(table).board


def _leaderboard(runs: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    if runs.empty:
        return pd.DataFrame(columns=[*GROUP, *_BOARD])
    runs_of, boards = dict(iter(runs.groupby(GROUP))), []
    for group, part in cells.groupby(GROUP):
        board = _board(part, runs_of[group])
        for column in GROUP:
            board[column] = part[column].iloc[0]
        boards.append(board[[*GROUP, *_BOARD]])
    return pd.concat(boards, ignore_index=True)


def over_attacks(runs: pd.DataFrame) -> pd.DataFrame:
    """Averages accuracy over the attacks of ``runs``, for each group and defense (the index).

    ``runs`` are rows of ``comparable``.

    Columns: ``mean`` of the means over seeds, NaN where an attack of the group is lacking; ``std``
    over the seeds that cover every attack; ``n``, how many these are.
    """
    import pandas as pd

    if runs.empty:  # which pandas cannot join where its texts are pyarrow's
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
    *(
        "with_needs",
        "rank",
        "defense",
        "is_undefended",
        "mean",
        "std",
        "n",
        "worst",
        "worst_attack",
        "clean",
        "price_points",
    ),
    *("cost", "covered", "attacks", "missing", "needs"),
]


def _board(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard of one group, from its cells and its rows of the long table."""
    board = cells.groupby("defense")[["is_undefended", "needs"]].first()
    clean, attacked = cells[cells["is_clean"]], cells[~cells["is_clean"]]
    acc = attacked.pivot(index="defense", columns="attack", values="mean").reindex(
        index=board.index
    )
    faced = (
        runs[~runs["is_clean"]] if acc.shape[1] else runs
    )  # without attacks the seeds are those of the clean cells
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
    board["cost"] = _cost(faced, runs)
    board["covered"] = acc.notna().sum(axis=1).astype("int64")
    board["attacks"] = acc.shape[1]
    board["missing"] = _missing(cells, list(board.index))
    board["with_needs"] = board["needs"] != ""
    eligible = covers_all & ~board["is_undefended"] & (board["missing"] == "")
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

    It is the mean over their common seeds; over all seeds if they have none in common.
    """
    one = clean[clean["is_undefended"]].groupby(RUN)["test_acc"].mean()
    paired = clean.join(one.rename("one"), on=RUN)
    rough = one.mean() - clean.groupby("defense")["test_acc"].mean()
    return (paired["one"] - paired["test_acc"]).groupby(paired["defense"]).mean().fillna(rough)


def _cost(faced: pd.DataFrame, runs: pd.DataFrame) -> pd.Series[float]:
    """Purify and train seconds a defense, mean over attacks, per those of the undefended victim.

    Both means are over the attacks and seeds that have seconds of both, so that the undefended row
    is 1 and a defense that was not run on the slow attacks, or on the slow machine, does not look
    cheap. A defense without such a pair is divided by the mean of all undefended trainings there
    are, clean data included: a rough unit is better than no cost.
    """
    seconds = runs["seconds_purify"].fillna(0) + runs["seconds_train"]
    undefended = runs.assign(one=seconds)[runs["is_undefended"]]
    ours = faced.assign(seconds=seconds).join(
        undefended.groupby(["attack", *RUN])["one"].mean(), on=["attack", *RUN]
    )
    pairs = (
        ours.dropna(subset=["seconds", "one"])
        .groupby(["defense", "attack"])[["seconds", "one"]]
        .mean()
        .groupby("defense")
        .mean()
    )
    rough = ours.groupby(["defense", "attack"])["seconds"].mean().groupby(
        "defense"
    ).mean() / _positive(float(undefended["one"].mean()))
    return (pairs["seconds"] / pairs["one"].map(_positive)).reindex(rough.index).fillna(rough)


def _positive(seconds: float) -> float:
    return seconds if seconds > 0 else math.nan


def _missing(cells: pd.DataFrame, defenses: list[str]) -> list[str]:
    """What each defense lacks of the group's columns, as ``em (failed), ops (absent)``."""
    n = cells.pivot(index="defense", columns="attack", values="n")
    lacking: dict[str, list[str]] = {defense: [] for defense in defenses}
    for attack in sorted(n.columns):
        for defense, finished in n[attack].items():
            if not finished > 0:
                lacking[str(defense)].append(
                    f"{attack} ({'absent' if math.isnan(finished) else 'failed'})"
                )
    return [", ".join(lacking[defense]) for defense in defenses]
