"""The table of accuracies that fills during a run, as plain lines and on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.display import Display, Live, Plain
from benchmark.running.scheduler.grid import Grid
from benchmark.running.scheduler.status import Running, Status
from benchmark.storage.store import Store
from support.fake_runner import cell, events, go, make

LONG = "em[granularity=class,noise_steps=1]"
NOTHING: frozenset[str] = frozenset()


def two_by_two(**failing: Any) -> list[Stage]:
    """Two attacks, two defenses; the last cell is undefended and may do what ``failing`` says."""
    return [
        make("poison", "p"),
        cell("a", "none", "none", inputs=("p",), acc=0.852),
        cell("b", "em", "dvae", inputs=("p",), acc=0.7449, cost=3),
        cell("c", "none", "dvae", inputs=("p",), acc=0.8, cost=2),
        cell("d", "em", "none", inputs=("p",), acc=0.0884, cost=4, **failing),
    ]


def plain(stages: list[Stage], store: Store, **options: Any) -> list[str]:
    out = io.StringIO()
    go(stages, store, display=Plain(out), slots=("cpu",), **options)
    return out.getvalue().splitlines()


def grown(count: int, attacks: int, labels: str = "defense") -> Grid:
    """A grid of ``count`` defenses, whose cells are d<row>a<column>."""
    return Grid(
        [
            cell(f"d{i}a{j}", f"attack{j}", f"{labels}{i}")
            for i in range(count)
            for j in range(attacks)
        ]
    )


def test_the_line_and_the_event_of_a_cell_have_its_accuracy(store: Store, tmp_path: Path) -> None:
    lines = plain(two_by_two(), store, events=tmp_path / "events.jsonl")
    (done,) = [line for line in lines if line.startswith("done    train em + none")]
    assert done.startswith("done    train em + none  8.8 %  0.")
    assert done.endswith(" s")
    logged = [item for item in events(tmp_path / "events.jsonl") if item["event"] == "stage_done"]
    assert {item["key"]: item.get("test_acc") for item in logged} == {
        "p": None,
        "a": 0.852,
        "b": 0.7449,
        "c": 0.8,
        "d": 0.0884,
    }
    assert "test_acc" not in logged[0]


def test_plain_lines_have_the_table_at_each_quarter_but_the_last(store: Store) -> None:
    lines = plain(two_by_two(), store)
    begins = [row for row, line in enumerate(lines) if line.startswith("accuracy")]
    assert [lines[row] for row in begins] == [
        f"accuracy in %, {count} of 4 cells" for count in (1, 2, 3)
    ]
    # only rows with a result; waiting cells are dots
    assert lines[begins[0] + 1 : begins[0] + 3] == ["        none  em", "  none  85.2   ."]
    assert lines[begins[2] + 1 : begins[2] + 4] == [
        "        none    em",
        "  none  85.2     .",
        "  dvae  80.0  74.5",
    ]


def test_a_continued_run_begins_with_the_stored_cells(store: Store) -> None:
    first = two_by_two()
    go(first[:3], store)
    lines = plain(first, store)
    assert lines[:5] == [
        "5 stages: 3 cached, 2 to run on 1 slot",
        "accuracy in %, 2 of 4 cells",
        "        none    em",
        "  none  85.2     .",
        "  dvae     .  74.5",
    ]
    assert len([line for line in lines if line.startswith("accuracy")]) == 2
    assert not any(line.startswith("accuracy") for line in plain(first, store)), "nothing to run"
    assert "accuracy in %, 1 of 4 cells" in plain(first, store, policy="force")


def test_a_cell_that_another_run_finished_is_in_the_table(store: Store) -> None:
    stages = two_by_two()

    class Neighbour(Plain):
        def started(self, text: str) -> None:
            if not store.has_record("c"):
                go(stages[:1] + stages[3:4], store)

    out = io.StringIO()
    go(stages, store, display=Neighbour(out), slots=("cpu",))
    assert "accuracy in %, 2 of 4 cells\n        none  em\n  none  85.2   .\n  dvae  80.0   ." in (
        out.getvalue()
    )


def test_failed_and_blocked_cells_are_shown_as_failed(store: Store) -> None:
    stages = [
        *two_by_two(raises=9),
        make("poison", "q", cost=0.5, raises=9),
        cell("e", "lsp", "none", inputs=("q",)),
        cell("f", "lsp", "dvae", inputs=("q",)),
    ]
    lines = plain(stages, store)
    assert any(line.startswith("FAILED  train em + none  0.") for line in lines)
    begin = max(row for row, line in enumerate(lines) if line.startswith("accuracy"))
    assert lines[begin : begin + 4] == [
        "accuracy in %, 3 of 6 cells",
        "        none    em     lsp",
        "  none  85.2     .  failed",
        "  dvae  80.0  74.5  failed",
    ]


def test_an_unreadable_record_hinders_no_other_cell(store: Store) -> None:
    stages = two_by_two()
    go(stages[:2], store)
    (store.root / "records" / "a" / "a.json").write_text("{")
    lines = plain(stages, store)
    assert lines[1:4] == ["accuracy in %, 1 of 4 cells", "        none  em", "  none     ?   ."]
    assert lines[-1].startswith("3 done, 2 cached, 0 failed")


def test_seeds_have_their_mean_and_count_and_each_group_has_a_table() -> None:
    stages = [cell(f"s{seed}", "em", "none") for seed in range(3)] + [
        cell("other", "em", "none", victim="w")
    ]
    grid = Grid(stages)
    grid.finish("s0", 0.1)
    grid.finish("s2", 0.2)
    grid.finish("no such cell", 0.9)
    only = [
        "accuracy in %, 2 of 4 cells",
        "  toy[train_per_class=0,test_per_class=0,subset_seed=0], v, quick, ratio 1",
        "                em",
        "  none  15.0 (2/3)",
    ]
    assert grid.whole() == only
    grid.fail("s1")
    assert grid.whole() == only, "a seed that failed has no accuracy, as in the report's mean"
    grid.finish("other", 0.5)
    assert grid.whole()[-2:] == ["          em", "  none  50.0"]
    assert len(grid.whole()) == 7
    assert (grid.total, grid.filled, grid.found) == (4, 4, 3)
    caption, *table = grid.fitting(120, 20, NOTHING)  # the group that changed last
    assert caption.startswith("accuracy in %, 3 of 4 cells; toy[")
    assert ", w, quick, ratio 1" in caption
    assert table == ["        em", "none  50.0"]


def test_a_terminal_shows_what_has_room() -> None:
    grid = grown(3, 2)
    grid.finish("d1a0", 0.25)
    assert grid.fitting(80, 5, frozenset({"d2a1"})) == [
        "accuracy in %, 1 of 6 cells",
        "          attack0  attack1",
        "defense0        .        .",
        "defense1     25.0        .",
        "defense2        .      ...",
    ]
    grid.finish("d2a1", 0.5)
    assert grid.fitting(80, 4, NOTHING) == [
        "accuracy in %, 2 of 6 cells; the last 2 of 3 defenses, 2 of 2 attacks",
        "          attack0  attack1",
        "defense1     25.0        .",
        "defense2        .     50.0",
    ]
    assert grid.fitting(25, 3, NOTHING)[1:] == ["          attack1", "defense2     50.0"]
    assert grid.fitting(80, 2, NOTHING) == []
    assert grid.fitting(16, 20, NOTHING) == []
    assert Grid().fitting(80, 20, NOTHING) == []


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("height", [4, 9, 24])
def test_the_table_never_exceeds_its_room(width: int, height: int) -> None:
    grid = Grid(
        [
            cell(f"{i}-{j}", attack, f"defense{i}[of=a long name]")
            for i in range(12)
            for j, attack in enumerate(["none", "em", LONG, "lsp", "ops", "tap", "rem", "ntga"])
        ]
    )
    for i in range(12):
        grid.finish(f"{i}-{i % 8}", i / 12)
    lines = grid.fitting(width, height, NOTHING)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert bool(lines) == (width > 20) or height == 4, "the long name alone takes three lines"


def test_long_names_are_folded_and_cut() -> None:
    grid = Grid([cell("a", LONG, "dvae[kd=3.0,width=16,latent=32]")])
    assert grid.fitting(80, 24, NOTHING) == [
        "accuracy in %, 0 of 1 cells",
        "                          em[granularity",
        "                          =class,noise_s",
        "                                 teps=1]",
        "dvae[kd=3.0,width=16,...               .",
    ]


def test_the_live_display_shows_the_table_above_the_bars() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=80, height=8)
    grid = grown(8, 2)
    grid.finish("d7a1", 0.123)
    status = Status(3, 1, 2, {}, grid=grid)
    status.running[0] = Running(cell("d6a0", "attack0", "defense6"), "cpu", status.clock(), 0.5)
    display = Live(console)
    display.open(status, "begin")
    display.tick()
    frame = file.getvalue().rpartition("accuracy in %")[2].splitlines()
    assert [line.rstrip() for line in frame[:5]] == [
        ", 1 of 16 cells; the last 3 of 8 defenses, 2 of 2 attacks",
        "          attack0  attack1",
        "defense0        .        .",
        "defense1        .        .",
        "defense7        .     12.3",
    ]
    assert frame[5].startswith("cpu #0  train attack0 + defense6")
    assert frame[6].startswith("0 done, 1 cached, 1 running")
    display.close("end")


def test_a_run_on_a_terminal_fills_the_table(store: Store) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=80, height=30)
    go(two_by_two(), store, display=Live(console), slots=("cpu",))
    text = file.getvalue()
    assert "done    train em + none  8.8 %" in text
    frame = text.partition("accuracy in %, 3 of 4 cells")[2].splitlines()  # once it is drawn
    assert [line.rstrip() for line in frame[1:4]] == [
        "      none    em",
        "none  85.2     .",
        "dvae  80.0  74.5",
    ]


def test_no_display_needs_no_table(store: Store) -> None:
    assert go(two_by_two(), store, display=Display()).exit_code == 0
