"""The scheduler, with stages that sleep, raise, print and kill their own process instead of training."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_runner import RUNNER, alive, make, runs
from rich.console import Console

from benchmark.plan import Stage
from benchmark.record import Record
from benchmark.scheduler import Machine, Outcome, default_slots, run_plan
from benchmark.scheduler.display import Display, Live, Plain, open_display
from benchmark.scheduler.events import EventLog
from benchmark.scheduler.graph import Graph
from benchmark.scheduler.status import Running, Status, duration
from benchmark.store import Store

TWO = ("cpu", "cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def go(stages: Sequence[Stage], store: Store, executor: str = "inline", **options: Any) -> Outcome:
    values: dict[str, Any] = {"slots": TWO, "runner": RUNNER, "display": "none", **options}
    return run_plan(stages, store, Machine(), executor=executor, **values)


def diamond(**poison: Any) -> list[Stage]:
    """One poison, two purifications of it, three victims, and one poison beside them."""
    return [
        make("poison", "p1", **poison),
        make("purify", "u1", ("p1",)),
        make("purify", "u2", ("p1",)),
        make("train", "t1", ("u1",)),
        make("train", "t2", ("u2",)),
        make("train", "t3", ("p1",)),
        make("poison", "p2"),
        make("train", "t4", ("p2",)),
    ]


def counts(outcome: Outcome) -> tuple[int, int, int, int, int]:
    return outcome.done, outcome.cached, outcome.failed, outcome.blocked, outcome.missing


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# What runs, and in which order


def test_each_stage_runs_once_after_its_inputs(store: Store) -> None:
    stages = [*diamond(), make("poison", "p1")]  # a shared stage that is listed twice
    outcome = go(stages, store)
    assert counts(outcome) == (8, 0, 0, 0, 0)
    assert outcome.exit_code == 0
    assert sorted(runs(store)) == sorted(stage.key for stage in diamond())  # the runner asserts that inputs were there


def test_the_costly_path_goes_first(store: Store) -> None:
    stages = [
        make("poison", "cheap", cost=1),
        make("train", "cheap-t", ("cheap",), cost=1),
        make("poison", "long", cost=1),
        make("purify", "long-u", ("long",), cost=20),
        make("train", "long-t", ("long-u",), cost=5),
        make("poison", "mid", cost=10),
    ]
    go(stages, store)
    assert runs(store) == ["long", "long-u", "mid", "long-t", "cheap", "cheap-t"]


def test_what_is_done_is_skipped(store: Store) -> None:
    go(diamond(), store)
    (store.root / "records" / "t2" / "t2.json").unlink()
    outcome = go(diamond(), store)
    assert counts(outcome) == (1, 7, 0, 0, 0)
    assert runs(store).count("t2") == 2
    assert len(runs(store)) == 9


def test_a_stage_that_nobody_needs_is_not_run(store: Store) -> None:
    go(diamond(), store)
    for key in ("p1", "u2"):
        (store.root / "artifacts" / key / key / "manifest.json").unlink()
    assert counts(go(diamond(), store)) == (0, 6, 0, 0, 0)
    (store.root / "records" / "t1" / "t1.json").unlink()
    assert counts(go(diamond(), store)) == (1, 5, 0, 0, 0), "u1 is there, so p1 is not needed for t1"


def test_force_runs_everything_again(store: Store) -> None:
    go(diamond(), store)
    assert counts(go(diamond(), store, policy="force")) == (8, 0, 0, 0, 0)
    assert len(runs(store)) == 16


def test_collect_runs_nothing_and_counts(store: Store) -> None:
    go(diamond(raises=1), store)
    begun = runs(store)
    outcome = go(diamond(), store, policy="collect")
    # p1 failed, t1..t3 with it; its two purifications are simply not there
    assert counts(outcome) == (0, 2, 4, 0, 2)
    assert {item.label: item.error for item in outcome.failures}["poison p1"] == "ValueError: the plugin broke"
    assert runs(store) == begun


def test_collect_in_an_empty_store_creates_nothing(store: Store) -> None:
    assert counts(go(diamond(), store, policy="collect")) == (0, 0, 0, 0, 8)
    assert not store.root.exists()


def test_a_stage_that_another_run_finished_meanwhile_is_not_repeated(store: Store) -> None:
    class Neighbour(Display):
        def started(self, text: str) -> None:
            go([make("poison", "b")], store)

    stages = [make("poison", "a", cost=2), make("poison", "b")]
    assert counts(go(stages, store, slots=("cpu",), display=Neighbour())) == (1, 1, 0, 0, 0)
    assert runs(store).count("b") == 1


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([make("train", "t", ("p",)), make("poison", "p")], 'stage "train t" reads p, which no stage before it makes'),
        ([make("poison", "p"), make("purify", "p")], 'key p stands for "poison p" and for "purify p"'),
    ],
)
def test_a_plan_that_is_no_dag_is_refused(store: Store, stages: list[Stage], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        go(stages, store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "locl"}, 'unknown executor "locl"; did you mean "local"'),
        ({"policy": "mising"}, 'unknown policy "mising"; did you mean "missing"'),
        ({"display": "plane"}, 'unknown display "plane"; did you mean "plain"'),
        ({"slots": ()}, "slots is empty"),
    ],
)
def test_unknown_options_are_refused(store: Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        go(diamond(), store, **options)


def test_default_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    assert default_slots() == ("cpu",) * 3
    assert default_slots("cpu", workers=5) == ("cpu",) * 5
    assert default_slots("cuda:1", slots_per_gpu=2) == ("cuda:1", "cuda:1")
    with pytest.raises(ValueError, match="slots_per_gpu=0"):
        default_slots("cuda", slots_per_gpu=0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert default_slots("cuda", slots_per_gpu=2) == ("cuda:0", "cuda:1", "cuda:0", "cuda:1")
    assert default_slots("auto", slots_per_gpu=2, workers=3) == ("cuda:0", "cuda:1", "cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert default_slots("auto", workers=1) == ("cpu",)
    with pytest.raises(ValueError, match="torch sees no GPU; use --device cpu"):
        default_slots("cuda")


# Workers


def test_local_gives_what_inline_gives(tmp_path: Path) -> None:
    results = {}
    for executor in ("inline", "local"):
        store = Store(tmp_path / executor)
        assert counts(go(diamond(), store, executor)) == (8, 0, 0, 0, 0)
        results[executor] = [(record.key, record.test_acc) for record in store.records()]
    assert results["inline"] == results["local"]
    assert len(results["local"]) == 4


def test_slots_work_side_by_side_on_their_devices_and_stay_alive(store: Store) -> None:
    stages = [make("poison", f"p{i}", sleep=0.05) for i in range(6)]
    go(stages, store, "local", slots=("cuda:0", "cuda:1"))
    lines = [line.split() for line in (store.root / "journal").read_text().splitlines()]
    assert {device for _, _, device in lines} == {"cuda:0", "cuda:1"}
    assert len({pid for _, pid, _ in lines}) == 2, "a worker serves many stages"
    assert str(os.getpid()) not in {pid for _, pid, _ in lines}
    assert until(lambda: not any(alive(int(pid)) for _, pid, _ in lines))


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_failure_blocks_only_what_depends_on_it(store: Store, executor: str) -> None:
    outcome = go(diamond(raises=1), store, executor)
    assert counts(outcome) == (2, 0, 1, 5, 0)
    assert outcome.exit_code == 1
    assert [(item.key, item.label, item.error) for item in outcome.failures] == [("p1", "poison p1", "ValueError: the plugin broke")]
    failure = store.failure("p1")
    assert failure is not None
    assert "fake_runner.py" in failure["traceback"]
    blocked = {item["key"]: item for item in store.failures() if item["record"]}
    assert sorted(blocked) == ["t1", "t2", "t3"]
    record = Record.from_json(blocked["t1"]["record"])
    assert (record.status, record.attack, record.test_acc) == ("failed", "em", None)
    assert record.error == "poison p1 failed: ValueError: the plugin broke"
    assert [item.key for item in store.records()] == ["t4"]
    # the next run tries again, and what succeeds is a failure no longer
    assert counts(go(diamond(raises=1), store, executor)) == (6, 2, 0, 0, 0)
    assert list(store.failures()) == []


def test_a_failed_victim_has_a_failed_record(store: Store) -> None:
    assert counts(go([make("poison", "p"), make("train", "t", ("p",), raises=9)], store)) == (1, 0, 1, 0, 0)
    failure = store.failure("t")
    assert failure is not None
    assert Record.from_json(failure["record"]).error == "ValueError: the plugin broke"


def test_sys_exit_in_a_plugin_is_a_failure(store: Store) -> None:
    outcome = go([make("poison", "p", exit=3), make("poison", "q")], store, "local")
    assert counts(outcome) == (1, 0, 1, 0, 0)
    assert outcome.failures[0].error == "SystemExit: 3"


def test_a_stage_that_publishes_nothing_is_a_failure(store: Store) -> None:
    outcome = go([make("poison", "p", publishes_nothing=True)], store)
    assert "ended without an error but published nothing under p" in outcome.failures[0].error


def test_an_unknown_runner_is_a_failure_that_names_it(store: Store) -> None:
    outcome = go([make("poison", "p")], store, runner="no_such_module:run")
    assert outcome.failures[0].error == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_killed_worker_is_replaced_and_the_stage_retried(store: Store, tmp_path: Path) -> None:
    stages = [make("poison", "p", killed=1), make("train", "t", ("p",)), make("poison", "q", sleep=0.6), make("train", "s", ("q",))]
    log = tmp_path / "events.jsonl"
    assert counts(go(stages, store, "local", events=log)) == (4, 0, 0, 0, 0)
    assert sorted(runs(store)) == ["p", "p", "q", "s", "t"], "the neighbour never noticed"
    (retried,) = [item for item in events(log) if item["event"] == "stage_retried"]
    assert (retried["key"], retried["attempt"], retried["error"]) == ("p", 2, "was killed by signal 9 (SIGKILL)")
    assert list(store.failures()) == []


def test_a_stage_whose_workers_keep_dying_is_a_failure(store: Store) -> None:
    stages = [make("poison", "p", killed=9), make("train", "t", ("p",)), make("poison", "q")]
    outcome = go(stages, store, "local", retries=1)
    assert counts(outcome) == (1, 0, 1, 1, 0)
    assert runs(store).count("p") == 2
    error = outcome.failures[0].error
    assert error.startswith("the worker was killed by signal 9 (SIGKILL), 2 times; a system short of memory does that: run fewer slots")
    failure = store.failure("p")
    assert failure is not None
    assert "the last words" in failure["traceback"]


def test_a_worker_that_exits_says_its_code(store: Store) -> None:
    outcome = go([make("poison", "p", os_exit=7)], store, "local", retries=0)
    assert outcome.failures[0].error == "the worker ended with exit code 7, once"


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(store: Store, executor: str) -> None:
    stages = [make("poison", "first", cost=3), make("poison", "p", cost=2, full=1), make("train", "t", ("p",)), make("poison", "q")]
    outcome = go(stages, store, executor, slots=("cpu",))
    assert counts(outcome) == (1, 0, 1, 0, 2)
    assert outcome.stopped == "Nothing more is started: RuntimeError: wrapped by a library"
    assert outcome.exit_code == 1
    assert list(store.failures()) == [], "the disk is at fault, not the stage"
    assert counts(go(stages, store, executor, slots=("cpu",))) == (3, 1, 0, 0, 0)


def test_a_disk_too_full_for_the_failure_itself_stops_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "cannot write to /the/store: the disk is full")

    monkeypatch.setattr(Store, "publish_failure", full)
    outcome = go([make("poison", "p", cost=2, raises=1), make("poison", "q")], store)
    assert (outcome.failed, outcome.missing) == (1, 1)
    assert outcome.stopped == "Nothing more is started: cannot write to /the/store: the disk is full"


def test_a_store_that_cannot_be_written_stops_before_the_first_stage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="a file stands where a folder should be"):
        go(diamond(), Store(tmp_path / "file" / "store"))


def test_leftovers_of_killed_runs_are_swept(store: Store) -> None:
    store.check_writable()
    old = store.root / ".x.json~elsewhere~1~0.tmp"
    old.write_text("half")
    os.utime(old, (0, 0))
    go([make("poison", "p")], store)
    assert not old.exists()


# Interruptions, in processes of their own

SCRIPT = """
import json, sys
from pathlib import Path
from fake_runner import RUNNER, make
from benchmark.scheduler import Machine, run_plan
from benchmark.store import Store
root, executor, sleep, extra = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), json.loads(sys.argv[4])
stages = [make("poison", "p", cost=9), make("train", "t", ("p",), cost=9), make("purify", "u", ("p",), sleep=sleep, **extra),
          make("train", "v", ("u",))]
outcome = run_plan(stages, Store(root), Machine(), executor=executor, slots=["cpu", "cpu"], runner=RUNNER, display="plain",
                   events=root.parent / "events.jsonl")
assert "torch" not in sys.modules
print(outcome.summary)
sys.exit(outcome.exit_code)
"""


def script(store: Store, executor: str, sleep: float, **extra: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(store.root), executor, str(sleep), json.dumps(extra)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def pids(store: Store) -> list[int]:
    return [int(line.split()[1]) for line in (store.root / "journal").read_text().splitlines()]


@pytest.mark.parametrize(("executor", "number"), [("local", signal.SIGINT), ("local", signal.SIGTERM), ("inline", signal.SIGINT)])
def test_an_interrupted_run_is_continued_by_the_next(store: Store, executor: str, number: signal.Signals) -> None:
    process = script(store, executor, 60, child=executor == "local")
    assert until(lambda: "u" in runs(store) and store.is_done(make("train", "t")))
    assert executor == "inline" or until((store.root / "child").exists)
    time.sleep(0.05)
    process.send_signal(number)
    begin = time.monotonic()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert time.monotonic() - begin < 4
    assert "interrupted: 2 done, 0 cached, 0 failed, 2 not run in" in out
    assert "run the same command again to continue" in out
    assert "Traceback" not in err
    assert until(lambda: not any(alive(pid) for pid in pids(store)))
    if executor == "local":
        child = int((store.root / "child").read_text())
        assert until(lambda: not alive(child)), "the children of a worker go with it"
    assert [item["event"] for item in events(store.root.parent / "events.jsonl")][-2:] == ["interrupted", "end"]
    again = script(store, executor, 0)
    out, err = again.communicate(timeout=10)
    assert again.returncode == 0, err
    assert out.startswith("2 done, 2 cached, 0 failed")
    assert sorted(runs(store)) == ["p", "t", "u", "u", "v"], "nothing finished was computed again"


def test_a_killed_parent_takes_its_workers_along(store: Store) -> None:
    process = script(store, "local", 60, child=True)
    assert until(lambda: "u" in runs(store) and (store.root / "child").exists())
    process.kill()
    process.communicate(timeout=10)
    child = int((store.root / "child").read_text())
    assert until(lambda: not any(alive(pid) for pid in [*pids(store), child]), 5)


def test_when_all_is_cached_no_worker_and_no_torch_is_loaded(store: Store) -> None:
    go([make("poison", "p"), make("train", "t", ("p",)), make("purify", "u", ("p",)), make("train", "v", ("u",))], store)
    code = SCRIPT.replace('assert "torch" not in sys.modules', 'assert not {"torch", "numpy", "rich", "joblib"} & set(sys.modules)')
    code = code.replace('slots=["cpu", "cpu"], runner=RUNNER', "runner='no_such_module:run'")
    assert code.count("slots") == 0
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root), "local", "0", "{}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 done, 4 cached, 0 failed")
    assert done.stderr.splitlines()[0] == "4 stages: 4 cached, 0 to run"


# What people and programs see


def test_the_event_log(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "events.jsonl"
    go([make("poison", "p", print="a printed line")], store, "local", events=log, slots=("cpu",))
    stages = [make("poison", "p"), make("train", "t", ("p",), raises=1), make("poison", "q", raises=1), make("train", "s", ("q",))]
    log.write_text(log.read_text() + '{"torn')
    go(stages, store, events=log)
    lines = log.read_text().splitlines()
    torn = lines.index('{"torn')
    first, second = ([json.loads(line) for line in part] for part in (lines[:torn], lines[torn + 1 :]))
    assert first[0]["event"] == "start"
    assert (first[0]["to_run"], first[0]["slots"], first[0]["executor"]) == (1, ["cpu"], "local")
    assert [item["event"] for item in first[-2:]] == ["stage_done", "end"]
    assert {item["line"] for item in first if item["event"] == "log"} == {"a printed line", "to stderr", "threads 1"}
    done = first[-2]
    assert (done["key"], done["label"], done["slot"]) == ("p", "poison p", 0)
    assert 0 <= done["seconds"] < 5
    assert done["time"].endswith("+00:00")
    names = [item["event"] for item in second]
    assert names[:2] == ["start", "stage_cached"]
    assert sorted(names[2:-1]) == ["blocked", "stage_failed", "stage_failed", "stage_started", "stage_started"]
    assert next(item for item in second if item["event"] == "blocked")["error"] == "poison q failed: ValueError: the plugin broke"
    assert (second[-1]["event"], second[-1]["failed"], second[-1]["blocked"]) == ("end", 2, 1)


def test_an_event_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="a file stands where a folder should be"):
        EventLog(tmp_path / "file" / "events.jsonl")


def test_an_event_log_on_a_full_disk_stops_the_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullFile(io.FileIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("benchmark.scheduler.events.FileIO", FullFile)
    outcome = go(diamond(), store, events=tmp_path / "events.jsonl")
    assert outcome.done == 0
    assert "the disk is full" in outcome.stopped


def test_plain_lines(store: Store) -> None:
    out = io.StringIO()
    stages = [make("poison", "p", cost=3), make("train", "t", ("p",), raises=1, cost=2), make("poison", "q")]
    go(stages, store, display=Plain(out), slots=("cpu",))
    lines = out.getvalue().splitlines()
    assert lines[0] == "3 stages: 0 cached, 3 to run on 1 slot"
    assert lines[1] == "start   poison p on cpu"
    assert lines[2].startswith("done    poison p  0.")
    assert lines[2].endswith(" s")
    assert lines[4].startswith("FAILED  train t  0.")
    assert lines[4].endswith(" s: ValueError: the plugin broke")
    assert lines[-1].startswith("2 done, 0 cached, 1 failed in ")
    assert len(lines) == 8


def test_plain_heartbeat_every_half_minute() -> None:
    now, out = [0.0], io.StringIO()
    display = Plain(out, lambda: now[0])
    status = Status(2, 0, 1, {"q": make("poison", "q")}, clock=lambda: now[0])
    display.open(status, "begin")
    status.running[0] = Running(make("poison", "p"), "cpu", 0.0, 0.5, "epoch 5/10")
    for now[0] in range(0, 70, 2):
        display.tick()
    assert len(out.getvalue().splitlines()) == 3
    assert "0 done, 0 cached, 1 running, 0 failed, 1 waiting; about " in out.getvalue()
    assert "(poison p 50%)" in out.getvalue()


def test_the_live_display_shows_bars_notes_and_counts() -> None:
    out = io.StringIO()
    display = Live(Console(file=out, force_terminal=True, width=140))
    status = Status(3, 1, 2, {"q": make("poison", "q")})
    display.open(status, "3 stages")
    status.running[0] = Running(make("train", "em + dvae"), "cpu", status.clock(), 0.3, "epoch 3/10")
    status.running[1] = Running(make("poison", "[lsp]"), "cuda:0", status.clock())
    display.tick()
    display.say("done    purify [bold]x  3.0 s")
    display.close("the end")
    text = out.getvalue()
    for expected in ("train em + dvae", "epoch 3/10", "poison [lsp]", "cuda:0", "1 cached, 2 running", "[bold]x", "the end"):
        assert expected in text


def test_auto_is_plain_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert type(open_display("auto")) is Plain
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(open_display("auto")) is Live


def test_the_time_left_is_learnt_from_what_finished() -> None:
    now = [0.0]
    waiting = {key: make("train", key, cost=10) for key in "abc"}
    status = Status(5, 0, 2, waiting, clock=lambda: now[0])
    assert status.seconds_left() is None
    status.learn(make("train", "x", cost=5), 20.0)  # 4 s a unit
    assert status.seconds_left() == pytest.approx(60)  # 3 stages of 40 s on 2 slots
    status.running[0] = Running(make("train", "d", cost=10), "cpu", 0.0)
    now[0] = 10.0
    assert status.seconds_left() == pytest.approx((120 + 30) / 2)
    waiting["p"] = make("poison", "p", cost=1)  # an unknown kind goes by all together
    assert status.seconds_left() == pytest.approx((120 + 30 + 4) / 2)
    waiting.clear()
    assert status.seconds_left() == pytest.approx(30), "one stage left keeps one slot busy"
    assert [duration(value) for value in (5, 300, 12000)] == ["5 s", "5 min", "3 h 20 min"]


def test_priorities_are_the_longest_cost_to_the_end(store: Store) -> None:
    graph = Graph.build(diamond(), store, "missing")
    assert graph.priority == {"p1": 3, "u1": 2, "u2": 2, "t1": 1, "t2": 1, "t3": 1, "p2": 2, "t4": 1}
    assert [stage.key for stage in graph.downstream("p1")] == ["u1", "u2", "t1", "t2", "t3"]
