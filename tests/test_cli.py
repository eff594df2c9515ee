"""The command line: what it prints, writes and returns, and that only the commands that need torch load it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from tiny_bench import save_images, torch_settings_kept

from benchmark import __version__, cli
from benchmark.datasets import fingerprint
from benchmark.registry import ROOT, Registry
from benchmark.report import plots
from benchmark.spec import Spec, parse_spec
from benchmark.suite import load_suite, suite_names

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "sklearn", "scipy")
# Runs one command line after another in one process and prints, for each, its exit code and the heavy modules loaded so far.
WATCH = """
import json, sys
from benchmark.cli import main
for line in json.loads(sys.argv[1]):
    sys.argv[1:] = line
    try:
        main()
        code = None
    except SystemExit as end:
        code = end.code
    print("WATCH", json.dumps([line, code, sorted(set(sys.modules) & set(%r))]), flush=True)
""" % (HEAVY,)  # noqa: UP031  an f-string would need every brace twice

DIM = '''
from benchmark import Defense, defense

@defense(version=1, cite="nobody, 2024")
class Dim(Defense):
    """Halve the brightness."""
    needs = ("clean:3",)
    share: float = 1 / 2

    def purify(self, data, ctx):
        return data.map(lambda x: (x * self.share).to(x.dtype))
'''
FAILING = DIM.replace("Dim", "Failing").replace("return data.map", "raise RuntimeError('out of luck [really]')\n        return data.map")


@dataclass
class Result:
    """What a command line did. ``out`` and ``err`` without line breaks inside sentences."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-images")
    save_images(folder, {"train": 8, "test": 4})
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory, images: Path, registry: Registry) -> Path:
    """Holds the images, already decoded."""
    root = tmp_path_factory.mktemp("cli-data")
    fingerprint(Spec("folder", {"path": str(images), "size": 16}), root, registry)
    return root


@pytest.fixture
def tiny(tmp_path: Path, images: Path) -> str:
    """A suite of four cells that runs in a second."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"""
about: Two attacks and two defenses.
datasets: "folder[path={images},size=16]"
attacks: [none, lsp]
defenses: [none, grayscale]
victims: resnet10_w16
protocols: quick
protocol_values: {{epochs: 1, batch_size: 8}}
parameters:
  lsp: {{patch: 4, rms: 12/255}}
precision: fp32
""",
        encoding="utf-8",
    )
    return str(file)


@pytest.fixture
def call(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Calls the command line in this process; work happens below ``tmp_path``. Plots, which take longest, are left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_DATA", str(data_root))
    for plot in ("heatmap", "curves"):
        monkeypatch.setattr(plots, plot, lambda section: {"png": b"-", "pdf": b"-"})
    monkeypatch.setattr(cli, "console", Console(width=300))
    monkeypatch.setattr(cli, "errors", Console(width=300, stderr=True))

    def called(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["run_benchmark.py", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(end.value.code or 0), captured.out, captured.err)

    with torch_settings_kept():
        yield called


def run_tiny(call: Call, tiny: str, *args: str) -> Result:
    return call("run", tiny, "--executor", "inline", *args)


def watch(folder: Path, data_root: Path, *lines: list[str]) -> tuple[list[tuple[int | None, list[str]]], str]:
    """(exit code, heavy modules loaded) of each command line, run in one fresh process, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(lines)],
        cwd=folder,
        env={**os.environ, "UEBENCH_DATA": str(data_root), "PYTHONPATH": str(ROOT), "COLUMNS": "300", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line.removeprefix("WATCH ")) for line in done.stdout.splitlines() if line.startswith("WATCH ")]
    assert [line for line, _, _ in found] == list(lines)
    return [(code, modules) for _, code, modules in found], done.stdout + done.stderr


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def plugin(folder: Path, name: str, source: str) -> str:
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return str(folder / f"{name}.py")


@pytest.mark.e2e
def test_help_and_lists_load_nothing_heavy(tmp_path: Path, data_root: Path) -> None:
    kinds = ("attacks", "defenses", "victims", "datasets", "protocols", "suites")
    lines = [["--help"], ["--version"], ["run", "--help"], *(["list", kind] for kind in kinds), ["list", "attacks", "em"]]
    found, printed = watch(tmp_path, data_root, *lines)
    assert found == [(0, [])] * len(lines)
    assert "dvae" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_plan_quick_runs_nothing_and_loads_no_torch(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> None:
    root = tmp_path_factory.mktemp("embedded")
    suite = load_suite("quick", registry)
    fingerprint(parse_spec(suite.datasets[0]), root, registry)  # the one thing that planning may have to build
    found, printed = watch(tmp_path, root, ["plan", "quick", "--device", "cpu"], ["plan", "quick", "--device", "cpu", "--attacks", "em"])
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
    """The whole way as a user goes it: processes, workers, files; and once more, when nothing is left to do."""
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
    assert {"leaderboard.html", "leaderboard.md", "leaderboard.csv", "cells.csv", "events.jsonl"} <= names
    assert {"heatmap.png", "heatmap.pdf", "curves.png", "curves.pdf"} <= names
    assert "grayscale" in (folder / "leaderboard.html").read_text(encoding="utf-8")
    assert len(read_csv(folder / "cells.csv")) == 4
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (events[0], events[-1], events.count("stage_done")) == ("start", "end", 8)

    reports = {file: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != "events.jsonl"}
    ((code, modules),), printed = watch(tmp_path, data_root, command)
    assert code == 0
    assert set(modules) <= {"pandas"}
    assert "0 done, 8 cached, 0 failed" in printed
    assert [file.name for file, time in reports.items() if file.stat().st_mtime_ns != time] == []


def test_version(call: Call) -> None:
    assert call("--version") == Result(0, f"uebench {__version__}\n", "")


def test_without_a_command_quick_is_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    monkeypatch.setattr(cli, "run", lambda: ran.append(True))
    assert call().code == 0
    assert ran == [True]


def test_help_names_every_command(call: Call) -> None:
    result = call("-h")
    assert result.code == 0
    for command in ("run", "plan", "list", "report", "check"):
        assert f"{command} " in result.out
    assert "--policy" in call("run", "--help").out


def test_a_method_is_listed_as_its_source_is_written(call: Call, tmp_path: Path) -> None:
    one = call("list", "attacks", "em").out
    assert "arXiv:2101.04898" in one
    assert "norm linf" in one
    assert "eps: float = 8 / 255  L-inf budget in [0, 1] units." in one
    assert "lsp" not in one
    every = call("list", "attacks").out
    assert all(f"{name}  " in every for name in ("em", "lsp", "ops", "none"))
    mine = call("list", "defenses", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    assert mine.out.splitlines() == [
        "dim  Halve the brightness.  nobody, 2024; version 1; needs clean:3",
        "    share: float = 1 / 2  ",
    ]
    assert "path: str (required)" in call("list", "datasets", "folder").out
    assert "308,826 parameters" in call("list", "victims").out


def test_protocols_and_suites_are_listed(call: Call) -> None:
    protocols = call("list", "protocols").out
    assert all(f"{name}  " in protocols for name in ("std60", "lite", "quick"))
    assert "epochs=60, batch_size=128, lr=0.1" in protocols
    assert "std60" not in call("list", "protocols", "lite").out
    suites = call("list", "suites").out
    assert all(f"{name}  " in suites for name in suite_names())
    assert "cifar10-lite" not in call("list", "suites", "quick").out


def test_a_broken_plugin_is_listed_with_its_reason(call: Call, tmp_path: Path) -> None:
    result = call("list", "defenses", "--plugin", plugin(tmp_path, "mine", DIM.replace("1 / 2", "max(1, 2)")))
    assert result.code == 0
    assert "jpeg" in result.out
    assert "left out defense mine:" in result.err
    assert "share = max(1, 2) is not a literal" in result.err


def test_run_with_a_plugin_writes_its_row(call: Call, tiny: str, tmp_path: Path) -> None:
    mine = plugin(tmp_path, "dim", DIM)
    result = run_tiny(call, tiny, "--plugin", mine, "--defenses", "none,dim[share=0.25]", "--results", "out")
    assert result.code == 0, result.out + result.err
    assert "dim[share=0.25]" in result.out
    rows = read_csv(tmp_path / "out" / "tiny" / "leaderboard.csv")
    assert {(row["defense"], row["needs"]) for row in rows} == {("none", ""), ("dim[share=0.25]", "clean:3")}
    assert not (tmp_path / "results").exists()


def test_seeds_give_mean_and_n(call: Call, tiny: str, tmp_path: Path) -> None:
    result = run_tiny(call, tiny, "--seeds", "0-1", "--attacks", "lsp", "--defenses", "none")
    assert result.code == 0
    assert "2 seeds" in result.out
    (row,) = read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    assert (row["n"], row["failed"]) == ("2", "0")
    records = [json.loads(file.read_text()) for file in (tmp_path / "results" / "store" / "records").glob("*/*.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert float(row["mean"]) == pytest.approx(sum(record["test_acc"] for record in records) / 2, abs=1e-6)


def test_a_failing_plugin_costs_its_own_cells_only(call: Call, tiny: str, tmp_path: Path) -> None:
    mine = plugin(tmp_path, "failing", FAILING)
    result = run_tiny(call, tiny, "--plugin", mine, "--defenses", "none,failing")
    assert result.code == 1
    assert "out of luck [really]" in result.out
    cells = {(row["attack"], row["defense"]): row for row in read_csv(tmp_path / "results" / "tiny" / "cells.csv")}
    assert {key: (row["n"], row["failed"]) for key, row in cells.items()} == {
        ("none", "none"): ("1", "0"),
        ("lsp", "none"): ("1", "0"),
        ("none", "failing"): ("0", "1"),
        ("lsp", "failing"): ("0", "1"),
    }
    assert "failed" in (tmp_path / "results" / "tiny" / "leaderboard.md").read_text(encoding="utf-8")
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


def test_a_report_needs_neither_the_images_nor_the_plugin(call: Call, tiny: str, images: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "mine", {"train": 10, "test": 5})
    text = Path(tiny).read_text(encoding="utf-8").replace(str(images), str(tmp_path / "mine"))
    (tmp_path / "gone.yaml").write_text(text, encoding="utf-8")
    assert run_tiny(call, "gone.yaml", "--plugin", plugin(tmp_path, "dim", DIM), "--attacks", "lsp", "--defenses", "none,dim").code == 0
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    result = call("report", "gone.yaml")
    assert result.code == 0, result.err
    assert {row["defense"] for row in read_csv(tmp_path / "results" / "gone" / "cells.csv")} == {"none", "dim"}


def test_one_setting_written_in_two_ways_is_one_column(call: Call, tiny: str, tmp_path: Path) -> None:
    assert run_tiny(call, tiny, "--attacks", "lsp", "--defenses", "none").code == 0
    assert run_tiny(call, tiny, "--attacks", "lsp[patch=4]", "--defenses", "none,grayscale").code == 0
    rows = read_csv(tmp_path / "results" / "tiny" / "cells.csv")
    assert [(row["attack"], row["defense"]) for row in rows] == [("lsp", "grayscale"), ("lsp", "none")]


def test_a_result_outlives_a_failed_second_attempt(call: Call, tiny: str, tmp_path: Path) -> None:
    args = ("--attacks", "lsp", "--defenses", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    assert run_tiny(call, tiny, *args).code == 0
    sys.modules.pop("uebench_plugin_dim", None)
    plugin(tmp_path, "dim", FAILING.replace("Failing", "Dim"))
    assert run_tiny(call, tiny, *args, "--policy", "force").code == 1
    sys.modules.pop("uebench_plugin_dim", None)
    third = run_tiny(call, tiny, *args)
    assert third.code == 0
    assert "1 cells failed when they were computed again; their earlier results are shown" in third.err
    assert [(row["n"], row["failed"]) for row in read_csv(tmp_path / "results" / "tiny" / "cells.csv")] == [("1", "0")]


def test_values_that_a_method_refuses_are_told_at_once(call: Call, tiny: str, tmp_path: Path) -> None:
    result = run_tiny(call, tiny, "--attacks", "none,em[eps=8]", "--defenses", "none,jpeg[quality=0]")
    assert result.code == 2
    assert "2 problems" in result.err
    assert 'attack "em[eps=8]": ' in result.err
    assert 'defense "jpeg[quality=0]": ' in result.err
    assert not (tmp_path / "results").exists()


def test_a_plugin_file_without_a_method_is_named(call: Call, tmp_path: Path) -> None:
    result = call("list", "defenses", "--plugin", plugin(tmp_path, "empty", "x = 1\n"))
    assert result.code == 0
    assert "left out plugin empty" in result.err
    assert "holds no method; decorate a class with @attack, @defense or @dataset" in result.err


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
    assert first.out.startswith(f"tiny / folder[path={images},size=16] / resnet10_w16 / quick / ratio 1 / seed 0\n")
    assert "4 cells to do, about 4 times one undefended training" in first.out
    assert run_tiny(call, tiny, "--attacks", "lsp").code == 0
    then = call("plan", tiny, "--set", "ratios=0,1").out
    assert then.count(" cached ") == 2
    assert "min on" in then  # timed by what has run
    assert "skipped folder[path=" in then
    assert 'ratio 0 is clean data; the attack "none" covers it' in then


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "qick"], 'unknown suite "qick"; did you mean "quick"?'),
        (["plan", "quick", "--attacks", "emm"], 'attacks[0]: unknown attack "emm"; did you mean "em"?'),
        (["run", "quick", "--defenses", "none,jpeg[qualty=3]"], 'defense "jpeg" has no parameter "qualty"; did you mean "quality"?'),
        (["run", "quick", "--dataset", "embeded"], 'unknown dataset "embeded"; did you mean "embedded"?'),
        (["run", "quick", "--victim", "resnet19"], 'unknown victim "resnet19"; did you mean "resnet18"?'),
        (["run", "quick", "--protocol", "st60"], 'unknown protocol "st60"; did you mean "std60"?'),
        (["run", "quick", "--set", "protocol.epoch=2"], 'a protocol has no setting "epoch"'),
        (["run", "quick", "--seeds", "a"], 'cannot read the seeds "a"; write 0,1,2 or 0-4'),
        (["run", "quick", "--device", "gpu"], 'unknown device "gpu"; expected auto, cpu, cuda or cuda:0'),
        (["run", "quick", "--device", "cuda:99"], 'device "cuda:99" was asked for but torch sees'),
        (["run", "quick", "--plugin", "absent.py"], "--plugin absent.py: no such file"),
        (["list", "attacks", "emm"], 'unknown attack "emm"; did you mean "em"?'),
        (["list", "protocols", "fast"], 'unknown protocol "fast"'),
        (["list", "suites", "fast"], 'unknown suite "fast"'),
        (["check", "jpg"], 'unknown method "jpg"; did you mean "jpeg"?'),
        (["report", "qick"], 'unknown suite "qick"'),
    ],
)
def test_wrong_names_end_with_one_message(args: list[str], message: str, call: Call, tmp_path: Path) -> None:
    result = call(*args)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_say_how_it_is_used(call: Call) -> None:
    for args in (["frobnicate"], ["run", "quick", "--policy", "often"], ["list", "things"]):
        result = call(*args)
        assert result.code == 2
        assert "Usage: " in result.err
        assert args[0] in result.err


def test_missing_images_say_how_to_get_them(call: Call, tmp_path: Path) -> None:
    result = call("run", "cifar10-lite", "--data-root", str(tmp_path / "nothing"))
    assert result.code == 2
    assert "--download" in result.err
    result = call("plan", "quick", "--dataset", "folder[path=nowhere]")
    assert result.code == 2
    assert "nowhere does not exist; folder[path=...] expects a folder with train/<class>/* and test/<class>/*" in result.err


def test_a_store_that_cannot_be_written_is_named_before_any_work(call: Call, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    result = run_tiny(call, tiny, "--results", "blocked")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: cannot write to blocked/store: a file stands where a folder should be")


def test_check_of_good_and_broken_methods(call: Call, tmp_path: Path) -> None:
    good = call("check", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    assert good.code == 0, good.out
    assert "all checks passed" in good.out
    assert "FAILED" not in good.out
    broken = call("check", "bad", "--plugin", plugin(tmp_path, "bad", DIM.replace("return data.map", "return data.x / 255 #")))
    assert broken.code == 1
    assert "FAILED purify: " in broken.out
    assert "returned a tensor of torch.float32" in broken.out
    unreadable = call("check", "torn", "--plugin", plugin(tmp_path, "torn", DIM + "\n  nonsense"))
    assert unreadable.code == 2
    assert "left out defense torn" in unreadable.err


def test_check_can_tell_two_methods_of_one_name_apart(call: Call) -> None:
    both = call("check", "none")
    assert both.code == 0
    assert both.out.index("attack none") < both.out.index("defense none")
    assert "attack none" not in call("check", "none", "--kind", "defense").out
