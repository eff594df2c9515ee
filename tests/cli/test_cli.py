"""Running, planning and reporting from the command line.

Only the commands that need torch load it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.catalogue.registry import ROOT, Registry
from benchmark.cli import main as cli
from benchmark.datasets._open import fingerprint
from benchmark.planning.suite import load_suite
from support.command_line import DIM, FAILING, Call, plugin, read_csv, run_tiny, watch
from support.tiny_bench import save_images


@pytest.mark.e2e
def test_plan_quick_runs_nothing_and_loads_no_torch(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, registry: Registry
) -> None:
    root = tmp_path_factory.mktemp("embedded")
    suite = load_suite("quick", registry)
    fingerprint(suite.datasets[0], root, registry)  # planning may have to build this set
    found, printed = watch(
        tmp_path,
        root,
        ["plan", "quick", "--device", "cpu"],
        ["plan", "quick", "--device", "cpu", "--attacks", "em"],
    )
    assert found == [(0, [])] * 2
    assert list(tmp_path.iterdir()) == []
    first = printed.partition("WATCH")[0]
    cells = len(suite.attacks) * len(suite.defenses)
    assert first.count("  to do ") == cells
    assert f"{cells} cells to do, about" in first
    assert "poison, purify, train" in first
    assert f"{len(suite.defenses)} cells to do" in printed


@pytest.mark.e2e
def test_a_run_is_continued_and_then_cached(tmp_path: Path, data_root: Path, tiny: str) -> None:
    """Do what a user does: start processes, workers and files, and run again when all is done."""
    command = ["run", tiny, "--device", "cpu", "--slots", "1"]
    env = {**os.environ, "UEBENCH_DATA": str(data_root), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_benchmark.py"), *command],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tiny: 4 cells in 8 stages" in done.stdout
    assert "8 done, 0 cached, 0 failed" in done.stderr + done.stdout
    folder = tmp_path / "results" / "tiny"
    names = {file.name for file in folder.iterdir()}
    assert {
        "leaderboard.html",
        "leaderboard.md",
        "leaderboard.csv",
        "cells.csv",
        "events.jsonl",
    } <= names
    assert {"heatmap.png", "heatmap.pdf", "curves.png", "curves.pdf"} <= names
    assert "grayscale" in (folder / "leaderboard.html").read_text(encoding="utf-8")
    assert len(read_csv(folder / "cells.csv")) == 4
    events = [
        json.loads(line)["event"]
        for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert (events[0], events[-1], events.count("stage_done")) == ("start", "end", 8)

    reports = {
        file: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != "events.jsonl"
    }
    ((code, modules),), printed = watch(tmp_path, data_root, command)
    assert code == 0
    assert set(modules) <= {"pandas"}
    assert "0 done, 8 cached, 0 failed" in printed
    assert [file.name for file, time in reports.items() if file.stat().st_mtime_ns != time] == []


def test_without_a_command_quick_is_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    monkeypatch.setattr(cli, "run", lambda **_: ran.append(True))
    assert call().code == 0
    assert ran == [True]


def test_run_with_a_plugin_writes_its_row(call: Call, tiny: str, tmp_path: Path) -> None:
    mine = plugin(tmp_path, "dim", DIM)
    result = run_tiny(
        call, tiny, "--plugin", mine, "--defenses", "none,dim[share=0.25]", "--results", "out"
    )
    assert result.code == 0, result.out + result.err
    assert "dim[share=0.25]" in result.out
    rows = read_csv(tmp_path / "out" / "tiny" / "leaderboard.csv")
    assert {(row["defense"], row["needs"]) for row in rows} == {
        ("none", ""),
        ("dim[share=0.25]", "clean:3"),
    }
    assert not (tmp_path / "results").exists()


def test_seeds_give_mean_and_n(call: Call, tiny: str, tmp_path: Path) -> None:
    result = run_tiny(call, tiny, "--seeds", "0-1", "--attacks", "lsp", "--defenses", "none")
    assert result.code == 0
    assert "2 seeds" in result.out
    (row,) = read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    assert (row["n"], row["failed"]) == ("2", "0")
    records = [
        json.loads(file.read_text())
        for file in (tmp_path / "results" / "store" / "records").glob("*/*.json")
    ]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert float(row["mean"]) == pytest.approx(
        sum(record["test_acc"] for record in records) / 2, abs=1e-6
    )


def test_a_report_mentions_the_other_seeds_of_its_cells(call: Call, tiny: str) -> None:
    one = ("--attacks", "none,lsp", "--defenses", "none")
    assert "more records" not in run_tiny(call, tiny, *one, "--seeds", "0").err
    run_tiny(call, tiny, "--attacks", "lsp[patch=2]", "--defenses", "none", "--seeds", "2")
    assert "2 more records of these cells, of other seeds: 0;" in (
        run_tiny(call, tiny, *one, "--seeds", "1").err
    )
    assert "of other seeds: 0;" in call("report", tiny).err
    both = call("report", tiny, *one, "--seeds", "0-1")
    assert "2 seeds" in both.out
    assert "more records" not in both.err


def test_a_failing_plugin_costs_its_own_cells_only(call: Call, tiny: str, tmp_path: Path) -> None:
    mine = plugin(tmp_path, "failing", FAILING)
    result = run_tiny(call, tiny, "--plugin", mine, "--defenses", "none,failing")
    assert result.code == 1
    assert "out of luck [really]" in result.out
    cells = {
        (row["attack"], row["defense"]): row
        for row in read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    }
    assert {key: (row["n"], row["failed"]) for key, row in cells.items()} == {
        ("none", "none"): ("1", "0"),
        ("lsp", "none"): ("1", "0"),
        ("none", "failing"): ("0", "1"),
        ("lsp", "failing"): ("0", "1"),
    }
    assert "failed" in (tmp_path / "results" / "tiny" / "leaderboard.md").read_text(
        encoding="utf-8"
    )
    assert call("report", "--all").code == 0
    assert {
        (row["n"], row["failed"]) for row in read_csv(tmp_path / "results" / "all" / "cells.csv")
    } == {("1", "0"), ("0", "1")}
    planned = call("plan", tiny, "--plugin", mine, "--defenses", "none,failing").out
    assert planned.count("failed before") == 2
    assert planned.count("cached") == 2
    again = run_tiny(call, tiny, "--plugin", mine, "--defenses", "none,failing")
    assert again.code == 1  # tried again, since a failure is never a result
    assert "0 done, 4 cached, 2 failed, 2 blocked" in again.out + again.err


def test_policies(call: Call, tiny: str, tmp_path: Path) -> None:
    nothing = run_tiny(call, tiny, "--policy", "collect")
    assert nothing.code == 0
    assert "no results yet; run the suite first" in nothing.err
    assert run_tiny(call, tiny, "--attacks", "lsp").code == 0
    some = run_tiny(call, tiny, "--policy", "collect")
    assert some.code == 0
    assert "4 cached" in some.out + some.err
    assert "4 not run" in some.out + some.err  # poison, purify and two trainings on clean data
    assert len(read_csv(tmp_path / "results" / "tiny" / "cells.csv")) == 2
    forced = run_tiny(call, tiny, "--attacks", "lsp", "--defenses", "none", "--policy", "force")
    assert "2 done, 0 cached" in forced.out + forced.err


def test_reports_are_made_from_records_alone(call: Call, tiny: str, tmp_path: Path) -> None:
    nothing = call("report", tiny)
    assert nothing.code == 1
    assert "no results yet" in nothing.err
    assert run_tiny(call, tiny, "--attacks", "lsp").code == 0
    before = (tmp_path / "results" / "tiny" / "cells.csv").read_bytes()
    for file in (tmp_path / "results" / "tiny").iterdir():
        file.unlink()
    result = call("report", tiny)
    assert result.code == 0
    assert "results/tiny/leaderboard.html" in result.out
    assert (tmp_path / "results" / "tiny" / "cells.csv").read_bytes() == before
    everything = call("report", "--all")
    assert everything.code == 0
    assert len(read_csv(tmp_path / "results" / "all" / "cells.csv")) == 2


def test_a_report_needs_neither_the_images_nor_the_plugin(
    call: Call, tiny: str, images: Path, tmp_path: Path
) -> None:
    save_images(tmp_path / "mine", {"train": 10, "test": 5})
    text = Path(tiny).read_text(encoding="utf-8").replace(str(images), str(tmp_path / "mine"))
    (tmp_path / "gone.yaml").write_text(text, encoding="utf-8")
    assert (
        run_tiny(
            call,
            "gone.yaml",
            "--plugin",
            plugin(tmp_path, "dim", DIM),
            "--attacks",
            "lsp",
            "--defenses",
            "none,dim",
        ).code
        == 0
    )
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    result = call("report", "gone.yaml")
    assert result.code == 0, result.err
    assert {row["defense"] for row in read_csv(tmp_path / "results" / "gone" / "cells.csv")} == {
        "none",
        "dim",
    }


def test_one_setting_written_in_two_ways_is_one_column(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    assert run_tiny(call, tiny, "--attacks", "lsp", "--defenses", "none").code == 0
    assert (
        run_tiny(call, tiny, "--attacks", "lsp[patch=4]", "--defenses", "none,grayscale").code == 0
    )
    rows = read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    assert [(row["attack"], row["defense"]) for row in rows] == [
        ("lsp[patch=4]", "grayscale"),
        ("lsp[patch=4]", "none"),
    ]


def test_a_result_outlives_a_failed_second_attempt(
    call: Call, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = "import os\n        if 'OUT_OF_LUCK' in os.environ:\n            raise RuntimeError"
    source = DIM.replace("return data.map", f"{unlucky}\n        return data.map")
    args = ("--attacks", "lsp", "--defenses", "dim", "--plugin", plugin(tmp_path, "dim", source))
    assert run_tiny(call, tiny, *args).code == 0
    monkeypatch.setenv("OUT_OF_LUCK", "1")
    assert run_tiny(call, tiny, *args, "--policy", "force").code == 1
    monkeypatch.delenv("OUT_OF_LUCK")
    third = run_tiny(call, tiny, *args)
    assert third.code == 0
    assert (
        "1 cells failed when they were computed again; their earlier results are shown" in third.err
    )
    assert [
        (row["n"], row["failed"]) for row in read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    ] == [("1", "0")]


def test_a_subset_larger_than_a_class_stops_the_command_not_its_cells(
    call: Call, tiny: str, images: Path
) -> None:
    result = run_tiny(
        call, tiny, "--dataset", f"folder[path={images},size=16,train_per_class=100000]"
    )
    assert result.code == 2
    assert "train_per_class=100000, but class" in result.err
    assert "cells in" not in result.out


def test_images_left_out_are_told_in_every_run(call: Call, tmp_path: Path) -> None:
    save_images(tmp_path / "some", {"train": 10, "test": 5})
    (tmp_path / "some" / "train" / "class0" / "torn[1].png").write_bytes(b"no image")
    where = ("--dataset", f"folder[path={tmp_path / 'some'},size=16,on_error=skip]")
    first, second = (call("plan", "quick", *where) for _ in range(2))
    assert "torn[1].png: " in first.err
    for result in (first, second):
        assert result.code == 0
        assert "1 images could not be read and are left out" in result.err


def test_plan_says_what_is_left(call: Call, tiny: str, images: Path) -> None:
    first = call("plan", tiny)
    assert first.code == 0
    assert first.out.count("  to do ") == 4
    assert first.out.startswith(
        f"tiny / folder[path={images},size=16] / resnet10_w16 / quick / ratio 1 / seed 0\n"
    )
    assert "4 cells to do, about 4 times one undefended training" in first.out
    assert run_tiny(call, tiny, "--attacks", "lsp").code == 0
    then = call("plan", tiny, "--set", "ratios=0,1").out
    assert then.count(" cached ") == 2
    assert "min on" in then  # the cost model uses the times of earlier runs
    assert "skipped folder[path=" in then
    assert 'ratio 0 is clean data; the attack "none" covers it' in then


def test_reports_of_the_installed_program_show_commands_that_exist(
    call: Call, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.cli.main.program_name", lambda started: "uebench")
    run_tiny(call, tiny, "--attacks", "none", "--defenses", "none")
    assert call("table").code == 0
    for file in ("tiny/leaderboard.html", "all/records.csv"):
        text = (tmp_path / "results" / file).read_text(encoding="utf-8")
        assert "uebench run quick --dataset" in text
        assert "run_benchmark.py" not in text
