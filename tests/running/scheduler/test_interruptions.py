"""Runs that are stopped, killed or find all cached, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.storage.store import Store
from support.fake_runner import alive, events, go, make, runs, until

SCRIPT = """
import json, sys
from pathlib import Path
from support.fake_runner import RUNNER, make
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.store import Store
root, executor = Path(sys.argv[1]), sys.argv[2]
sleep, extra = float(sys.argv[3]), json.loads(sys.argv[4])
stages = [make("poison", "p", cost=9), make("train", "t", ("p",)),
          make("purify", "u", ("p",), sleep=sleep, **extra), make("train", "v", ("u",))]
outcome = run_plan(stages, Store(root), Machine(), executor=executor, display="plain",
                   slots=["cpu", "cpu"], runner=RUNNER, events=root.parent / "events.jsonl")
assert "torch" not in sys.modules
print(outcome.summary)
sys.exit(outcome.exit_code)
"""


def script(store: Store, executor: str, sleep: float, **extra: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(store.root), executor, str(sleep), json.dumps(extra)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def pids(store: Store) -> list[int]:
    return [int(line.split()[1]) for line in (store.root / "journal").read_text().splitlines()]


@pytest.mark.parametrize(
    ("executor", "number"),
    [("local", signal.SIGINT), ("local", signal.SIGTERM), ("inline", signal.SIGINT)],
)
def test_an_interrupted_run_is_continued_by_the_next(
    store: Store, executor: str, number: signal.Signals
) -> None:
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
    assert [item["event"] for item in events(store.root.parent / "events.jsonl")][-2:] == [
        "interrupted",
        "end",
    ]
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
    go(
        [
            make("poison", "p"),
            make("train", "t", ("p",)),
            make("purify", "u", ("p",)),
            make("train", "v", ("u",)),
        ],
        store,
    )
    code = SCRIPT.replace(
        'assert "torch" not in sys.modules',
        'assert not {"torch", "numpy", "rich", "joblib"} & set(sys.modules)',
    )
    code = code.replace('slots=["cpu", "cpu"], runner=RUNNER', "runner='no_such_module:run'")
    assert code.count("slots") == 0
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
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
