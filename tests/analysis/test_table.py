"""Records to table, grid and leaderboard, with numbers worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from benchmark.analysis.leaderboard import grid, leaderboard
from benchmark.analysis.table import COLUMNS, comparable, sharing, to_table
from benchmark.storage.record import Record
from support.made_up_records import GOLDEN, plain


def record(attack: str, defense: str, acc: float | None, *, seed: int = 0, **values: Any) -> Record:
    return plain(attack, defense, acc, seed, values)


def row(table: Any, defense: str) -> Any:
    found = table[table["defense"] == defense]
    assert len(found) == 1
    return found.iloc[0]


def small() -> list[Record]:
    """Return two attacks and clean data against three defenses, one seed."""
    accs = {"none": (0.9, 0.1, 0.3), "soft": (0.8, 0.6, 0.4), "hard": (0.7, 0.5, 0.7)}
    return [
        record(attack, defense, acc)
        for defense, row in accs.items()
        for attack, acc in zip(("none", "a", "b"), row, strict=True)
    ]


def test_the_table_has_one_row_a_record_and_the_documented_columns() -> None:
    table = to_table([*small(), record("a", "broken", None, error="no memory", curve=(0.5,))])
    assert list(table.columns) == [*COLUMNS, "superseded"]
    assert len(table) == 10
    broken = row(table, "broken")
    assert (broken["status"], broken["error"], broken["curve"]) == ("failed", "no memory", ())
    assert math.isnan(broken["test_acc"])
    assert list(to_table([]).columns) == list(table.columns)


def test_fields_that_came_later_leave_the_sha256_of_an_older_record() -> None:
    old = json.loads((GOLDEN / "record-schema-1.json").read_text(encoding="utf-8"))
    sha = "ab0083868c74d87ff1b44fa0f591b290132d8d2d9529d9b015cd25e86362947b"
    assert to_table([Record.from_json(old)])["record"].tolist() == [sha]
    newer = Record.from_json({**old, "cpu_seconds": {"train": 1.5}})
    assert to_table([newer])["record"].tolist() != [sha]


def test_a_record_without_a_finite_accuracy_counts_as_failed() -> None:
    table = to_table([record("a", "x", math.nan)])
    assert table.loc[0, "status"] == "failed"
    assert table.loc[0, "error"] == "the record holds no accuracy"


def test_an_accuracy_in_percent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test_acc is 74\.1, expected a share in \[0, 1\]"):
        to_table([record("a", "x", 74.1)])


def test_the_grid_aggregates_over_seeds() -> None:
    cells = grid(
        to_table(
            [
                record("a", "x", 0.5),
                record("a", "x", 0.7, seed=1),
                record("a", "x", None, seed=2),
                record("a", "y", 0.4),
            ]
        )
    )
    x, y = row(cells, "x"), row(cells, "y")
    assert (x["mean"], x["std"], x["n"], x["failed"]) == (
        pytest.approx(0.6),
        pytest.approx(math.sqrt(0.02)),
        2,
        1,
    )
    assert (y["mean"], y["n"], y["failed"]) == (pytest.approx(0.4), 1, 0)
    assert math.isnan(y["std"])


def test_the_leaderboard_by_hand() -> None:
    board = leaderboard(to_table(small()))
    assert list(board["defense"]) == ["hard", "soft", "none"]
    assert board["rank"].tolist()[:2] == [1, 2]
    hard, none = row(board, "hard"), row(board, "none")
    assert hard["mean"] == pytest.approx(0.6)
    assert (hard["worst"], hard["worst_attack"]) == (0.5, "a")
    assert hard["price_points"] == pytest.approx(20.0)
    assert (hard["covered"], hard["attacks"], hard["n"], hard["missing"]) == (2, 2, 1, "")
    assert math.isnan(hard["std"])
    assert none["is_undefended"]
    assert board["rank"].isna().tolist() == [False, False, True]


def test_clean_data_do_not_enter_the_mean() -> None:
    better_on_clean = [
        item if (item.attack, item.defense) != ("none", "soft") else record("none", "soft", 1.0)
        for item in small()
    ]
    assert row(leaderboard(to_table(better_on_clean)), "soft")["mean"] == pytest.approx(0.5)


def test_the_spread_is_over_seeds_of_the_mean_over_attacks() -> None:
    records = [
        *(
            record("a", "x", 0.5),
            record("b", "x", 0.7),
            record("a", "x", 0.6, seed=1),
            record("b", "x", 0.8, seed=1),
        ),
        record("a", "x", 0.9, seed=2),  # this seed lacks an attack, so it has no mean over attacks
    ]
    x = row(leaderboard(to_table(records)), "x")
    assert (x["n"], x["std"]) == (2, pytest.approx(math.sqrt(0.005)))


def test_a_row_that_lacks_a_column_has_no_rank_and_stands_below() -> None:
    records = [*small(), record("a", "partial", 0.99), record("none", "partial", 0.9)]
    records += [
        record("a", "crashed", 0.98),
        record("b", "crashed", None),
        record("none", "crashed", 0.9),
    ]
    records += [record("a", "unpriced", 0.97), record("b", "unpriced", 0.97)]
    board = leaderboard(to_table(records))
    assert list(board["defense"]) == ["hard", "soft", "unpriced", "crashed", "partial", "none"]
    assert board["rank"].isna().tolist() == [False, False, True, True, True, True]
    assert [row(board, name)["missing"] for name in ("unpriced", "crashed", "partial")] == [
        "none (absent)",
        "b (failed)",
        "b (absent)",
    ]
    assert row(board, "unpriced")["mean"] == pytest.approx(0.97)
    assert math.isnan(row(board, "partial")["mean"])
    assert row(board, "partial")["covered"] == 1


def test_defenses_with_needs_are_ranked_apart() -> None:
    records = [
        *small(),
        *(
            record(attack, "rich", 0.95, needs=("clean:500", "pretrained:cifar10"))
            for attack in ("none", "a", "b")
        ),
    ]
    board = leaderboard(to_table(records))
    assert row(board, "rich")["rank"] == 1
    assert row(board, "hard")["rank"] == 1
    assert row(board, "rich")["needs"] == "clean:500, pretrained:cifar10"
    assert list(board["with_needs"]) == [False, False, False, True]


def test_equal_means_share_a_rank() -> None:
    board = leaderboard(
        to_table([record("a", name, acc) for name, acc in (("x", 0.5), ("y", 0.5), ("z", 0.25))])
    )
    assert board["rank"].tolist() == [1, 1, 3]


def test_cost_counts_one_clock_for_all_and_never_a_mixture() -> None:
    def clocks(purify: float, train: float, clock: str = "cpu_seconds") -> dict[str, Any]:
        slow = {"purify": 9 * purify, "train": 7 * train}  # a busy machine
        return {"seconds": slow, clock: {"purify": purify, "train": train}}

    undefended = record("a", "none", 0.1, **clocks(0.0, 10.0))
    x, y = record("a", "x", 0.5, **clocks(5.0, 10.0)), record("a", "y", 0.5, **clocks(30.0, 10.0))

    def shown(*made: Record) -> tuple[str, float]:
        board = row(leaderboard(to_table(made)), "x")
        return board["clock"], board["cost"]

    assert shown(undefended, x, y) == ("cpu_seconds", 1.5)
    # a record without any seconds is compared with none
    assert shown(undefended, x, y, record("a", "z", None, seconds={})) == ("cpu_seconds", 1.5)
    wall = ("seconds", pytest.approx(115 / 70))
    assert shown(undefended, x, replace(y, cpu_seconds={})) == wall, "an old record"
    assert shown(undefended, x, replace(y, cpu_seconds={"train": 10.0})) == wall, "an old purify"
    on_gpu = record("a", "y", 0.5, **clocks(3.0, 1.0, "device_seconds"))
    assert shown(undefended, x, on_gpu) == wall, "a GPU beside CPUs"
    gpus = [replace(one, cpu_seconds={}, device_seconds=one.cpu_seconds) for one in (undefended, x)]
    assert shown(*gpus, on_gpu) == ("device_seconds", 1.5)
    assert shown(record("a", "x", 0.5, seconds={}))[0] == "seconds"


def test_each_group_has_its_own_clock() -> None:
    timed = {"seconds": {"train": 8.0}, "cpu_seconds": {"train": 2.0}}
    board = leaderboard(
        to_table(
            [
                record("a", "x", 0.5, **timed),
                record("a", "x", 0.5, victim="other", seconds={"train": 8.0}),
            ]
        )
    )
    assert dict(zip(board["victim"], board["clock"], strict=True)) == {
        "net": "cpu_seconds",
        "other": "seconds",
    }


def test_cost_is_in_undefended_trainings_on_the_same_attacks() -> None:
    records = [
        record("none", "none", 0.9, seconds={"train": 60.0}),  # not the reference
        record("a", "none", 0.1, seconds={"train": 30.0}),
        record("b", "none", 0.1, seconds={"purify": 1.0, "train": 9.0}),
        record("a", "x", 0.5, seconds={"poison": 1000.0, "purify": 25.0, "train": 15.0}),
        record("b", "x", 0.5, seconds={"purify": 5.0, "train": 15.0}),
        record("b", "partial", 0.5, seconds={"train": 15.0}),
        # no undefended training to compare it with
        record("c", "partial", 0.5, seconds={"train": 400.0}),
        record("c", "elsewhere", 0.5, seconds={"train": 50.0}),
        record("c", "untimed", 0.5, seconds={}),
    ]
    board = leaderboard(to_table(records))
    assert row(board, "none")["cost"] == 1
    assert row(board, "x")["cost"] == pytest.approx(60 / 40)
    assert row(board, "partial")["cost"] == pytest.approx(1.5)
    assert row(board, "elsewhere")["cost"] == pytest.approx(50 * 3 / (60 + 30 + 10))
    assert math.isnan(row(board, "untimed")["cost"])
    assert row(leaderboard(to_table([records[0], *records[3:]])), "x")["cost"] == pytest.approx(
        30 / 60
    )
    assert math.isnan(row(leaderboard(to_table(records[3:])), "x")["cost"])
    on_clean = leaderboard(
        to_table([records[0], record("none", "x", 0.8, seconds={"train": 90.0})])
    )
    assert (row(on_clean, "none")["cost"], row(on_clean, "x")["cost"]) == (1, 1.5)


def test_without_attacks_there_is_nothing_to_rank() -> None:
    board = leaderboard(to_table([record("none", "none", 0.9), record("none", "x", 0.8)]))
    assert board["rank"].isna().all()
    assert row(board, "x")["price_points"] == pytest.approx(10.0)
    assert board["mean"].isna().all()


def test_groups_are_never_mixed() -> None:
    board = leaderboard(
        to_table([*small(), *(record("a", name, 0.5, victim="other") for name in ("soft", "hard"))])
    )
    assert board.groupby("victim")["attacks"].first().to_dict() == {"net": 2, "other": 1}
    assert len(board) == 5


def test_clean_cells_appear_at_each_poison_ratio() -> None:
    records = [record("none", "x", 0.8), record("none", "none", 0.9)]
    records += [
        record("a", name, acc, ratio=ratio)
        for ratio in (0.2, 0.6)
        for name, acc in (("x", 0.7), ("none", 0.5))
    ]
    board = leaderboard(to_table(records))
    assert sorted(board["ratio"].unique()) == [0.2, 0.6]
    assert board["clean"].notna().all()
    assert row(board[board["ratio"] == 0.6], "x")["price_points"] == pytest.approx(10.0)


def test_precisions_are_not_seeds_of_each_other() -> None:
    records = [
        record("a", "x", 0.5, seed=seed, precision=precision)
        for seed, precision in ((0, "fp32"), (1, "bf16"))
    ]
    assert sorted(to_table(records)["protocol"]) == [
        "quick (precision=bf16)",
        "quick (precision=fp32)",
    ]


def test_settings_that_differ_between_data_sets_keep_their_label() -> None:
    records = [
        record("a", "x", 0.5, dataset=name, defense_spec={"name": "x", "width": width})
        for name, width in (("toy", 8), ("real", 16))
    ]
    assert list(to_table(records)["defense"]) == ["x", "x"]


def test_a_newer_record_of_the_same_cell_supersedes_but_a_failure_does_not() -> None:
    records = [
        record("a", "x", 0.5, key="old", date="2025-01-01"),
        record("a", "x", 0.7, key="new", date="2025-02-01"),
        record("a", "x", None, key="failed", date="2025-03-01"),
    ]
    table = to_table(records)
    assert table.set_index("key")["superseded"].to_dict() == {
        "failed": True,
        "new": False,
        "old": True,
    }
    assert grid(table).loc[0, "mean"] == pytest.approx(0.7)
    assert len(comparable(table)) == 1


def test_a_draw_that_was_made_twice_counts_once() -> None:
    """A run that does not depend on the craft seed is the same run under another craft seed."""
    made = [
        record("none", "x", acc, seed=seed, craft_seed=craft)
        for craft in (0, 1)
        for seed, acc in ((0, 0.5), (1, 0.7))
    ]
    made = [replace(one, artifacts={"poison": "a"}, curve=(one.test_acc or 0,)) for one in made]
    assert grid(to_table(made))[["n", "std"]].values.tolist() == [[2, pytest.approx(0.02**0.5)]]
    assert (
        grid(
            to_table([*made, replace(made[0], key="y", craft_seed=2, artifacts={"poison": "b"})])
        ).loc[0, "n"]
        == 3
    )


def test_price_and_cost_are_over_the_seeds_of_both() -> None:
    """The first seed ran on a machine of half the speed, where the victim happened to be worse."""
    seconds = {0: 40.0, 1: 20.0}
    made = [
        record(attack, "none", acc, seed=seed)
        for seed, acc in ((0, 0.8), (1, 0.9))
        for attack in ("none", "em")
    ]
    made += [record(attack, "x", 0.7, seed=0) for attack in ("none", "em")]
    made = [replace(one, seconds={"train": seconds[one.seed]}) for one in made]
    row = leaderboard(to_table(made)).set_index("defense").loc["x"]
    assert (row["price_points"], row["cost"]) == pytest.approx((10, 1))


def test_the_order_of_a_sum_decides_no_rank() -> None:
    accs = (0.1, 0.2, 0.3, 0.7, 0.45)
    made = [
        record(f"a{i}", name, acc)
        for name, order in (("x", accs), ("y", accs[::-1]))
        for i, acc in enumerate(order)
    ]
    made += [record(f"a{i}", "none", 0.1) for i in range(5)]
    board = leaderboard(to_table(made)).set_index("defense")
    assert board.loc[["x", "y"], "rank"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([(0, 0), (1, 0)], ", which share poisons and purified sets"),
        ([(0, 0), (1, 1)], ", each with poisons and purified sets of its own"),
        ([(0, 0), (1, 0), (1, 1)], ", some of which share poisons and purified sets"),
    ],
)
def test_what_a_spread_covers_is_said(seeds: list[tuple[int, int]], said: str) -> None:
    assert (
        sharing(
            to_table([record("em", "x", 0.5, seed=seed, craft_seed=craft) for seed, craft in seeds])
        )
        == said
    )


def test_order_and_repetition_of_records_do_not_matter() -> None:
    records = small()
    assert to_table(records).equals(to_table([*reversed(records), records[0]]))


def test_the_digest_survives_json_and_sees_a_changed_number() -> None:
    made = record("a", "x", 0.5, curve=(0.25, 0.5), needs=("clean:500",), facts={"psnr": math.inf})
    again = Record.from_json(made.to_json() | {"curve": [0.25, 0.5]})
    others = [
        replace(made, key="c", **change)
        for change in ({"test_acc": 0.5000001}, {"sources": {"a.py": "0"}}, {"loss_curve": (1.0,)})
    ]

    def digest(one: Record) -> str:
        return str(to_table([one])["record"].item())

    assert digest(again) == digest(made)
    assert len({digest(one) for one in [replace(made, key="c"), *others]}) == 4
