"""The scheduler: which stages run in which order, and workers whose stages raise, exit or die."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.display import Display
from benchmark.running.scheduler.outcome import Outcome, default_slots
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.fake_runner import alive, diamond, events, go, make, runs, until


def counts(outcome: Outcome) -> tuple[int, int, int, int, int]:
    return outcome.done, outcome.cached, outcome.failed, outcome.blocked, outcome.missing


# What runs, and in which order


def test_each_stage_runs_once_after_its_inputs(store: Store) -> None:
    stages = [*diamond(), make("poison", "p1")]  # a shared stage that is listed twice
    outcome = go(stages, store)
    assert counts(outcome) == (8, 0, 0, 0, 0)
    assert outcome.exit_code == 0
    assert sorted(runs(store)) == sorted(
        stage.key for stage in diamond()
    )  # the runner asserts that inputs were there


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
    assert counts(go(diamond(), store)) == (1, 5, 0, 0, 0), (
        "u1 is there, so p1 is not needed for t1"
    )


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
    assert {item.label: item.error for item in outcome.failures}[
        "poison p1"
    ] == "ValueError: the plugin broke"
    assert runs(store) == begun


def test_collect_in_an_empty_store_creates_nothing(store: Store) -> None:
    assert counts(go(diamond(), store, policy="collect")) == (0, 0, 0, 0, 8)
    assert not store.root.exists()


def test_a_stage_that_another_run_finished_meanwhile_is_not_repeated(store: Store) -> None:
    class Neighbour(Display):
        def started(self, text: str) -> None:
            go([make("poison", "b")], store)

    stages = [make("poison", "a"), make("poison", "b", cost=2)]
    assert counts(go(stages, store, slots=("cpu",), display=Neighbour())) == (1, 1, 0, 0, 0)
    assert runs(store).count("b") == 1


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [make("train", "t", ("p",)), make("poison", "p")],
            'stage "train t" reads p, which no stage before it makes',
        ),
        (
            [make("poison", "p"), make("purify", "p")],
            'key p stands for "poison p" and for "purify p"',
        ),
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
    assert [(item.key, item.label, item.error) for item in outcome.failures] == [
        ("p1", "poison p1", "ValueError: the plugin broke")
    ]
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
    assert counts(go([make("poison", "p"), make("train", "t", ("p",), raises=9)], store)) == (
        1,
        0,
        1,
        0,
        0,
    )
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
    stages = [
        make("poison", "p", killed=1),
        make("train", "t", ("p",)),
        make("poison", "q", sleep=0.6),
        make("train", "s", ("q",)),
    ]
    log = tmp_path / "events.jsonl"
    assert counts(go(stages, store, "local", events=log)) == (4, 0, 0, 0, 0)
    assert sorted(runs(store)) == ["p", "p", "q", "s", "t"], "the neighbour never noticed"
    (retried,) = [item for item in events(log) if item["event"] == "stage_retried"]
    assert (retried["key"], retried["attempt"], retried["error"]) == (
        "p",
        2,
        "was killed by signal 9 (SIGKILL)",
    )
    assert list(store.failures()) == []


def test_a_stage_whose_workers_keep_dying_is_a_failure(store: Store) -> None:
    stages = [make("poison", "p", killed=9), make("train", "t", ("p",)), make("poison", "q")]
    outcome = go(stages, store, "local", retries=1)
    assert counts(outcome) == (1, 0, 1, 1, 0)
    assert runs(store).count("p") == 2
    error = outcome.failures[0].error
    assert error.startswith(
        "the worker was killed by signal 9 (SIGKILL), 2 times; a system short of memory does that: "
        "run fewer slots"
    )
    failure = store.failure("p")
    assert failure is not None
    assert "the last words" in failure["traceback"]


def test_a_worker_that_exits_says_its_code(store: Store) -> None:
    outcome = go([make("poison", "p", os_exit=7)], store, "local", retries=0)
    assert outcome.failures[0].error == "the worker ended with exit code 7, once"


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(store: Store, executor: str) -> None:
    stages = [
        make("poison", "first"),
        make("poison", "p", full=1),
        make("train", "t", ("p",)),
        make("poison", "q", cost=3),
    ]
    outcome = go(stages, store, executor, slots=("cpu",))
    assert counts(outcome) == (1, 0, 1, 0, 2)
    assert outcome.stopped == "Nothing more is started: RuntimeError: wrapped by a library"
    assert outcome.exit_code == 1
    assert list(store.failures()) == [], "the disk is at fault, not the stage"
    assert counts(go(stages, store, executor, slots=("cpu",))) == (3, 1, 0, 0, 0)


def test_a_disk_too_full_for_the_failure_itself_stops_the_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "cannot write to /the/store: the disk is full")

    monkeypatch.setattr(Store, "publish_failure", full)
    outcome = go([make("poison", "p", raises=1), make("poison", "q", cost=2)], store)
    assert (outcome.failed, outcome.missing) == (1, 1)
    assert (
        outcome.stopped == "Nothing more is started: cannot write to /the/store: the disk is full"
    )


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
