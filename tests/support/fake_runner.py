"""Stages for the scheduler's tests, and their running: they do what their payload says, in plain files, without torch."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.outcome import Machine, Outcome
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.record import Record
from benchmark.storage.store import Store

RUNNER = "support.fake_runner:run"
TWO = ("cpu", "cpu")


def make(
    kind: str, name: str, inputs: tuple[str, ...] = (), cost: float = 1.0, **payload: Any
) -> Stage:
    """A stage whose key is its name."""
    if kind == "train":
        payload["cell"] = {
            "key": name,
            "dataset": "toy",
            "attack": "em",
            "defense": "none",
            "victim": "v",
            "protocol": "quick",
            "needs": [],
        }
    return Stage(kind, name, inputs, payload, f"{kind} {name}", cost)


def runs(store: Store) -> list[str]:
    """The names of the stages that began, in order, over all runs."""
    journal = store.root / "journal"
    return (
        [line.split()[0] for line in journal.read_text().splitlines()] if journal.exists() else []
    )


def run(
    stage: Stage,
    store: Store,
    machine: Machine,
    on_progress: Callable[[float, str], None],
    on_log: Callable[[str], None],
) -> None:
    """Does ``stage``; the runner's signature."""
    payload = stage.payload
    with (store.root / "journal").open("a") as journal:
        journal.write(f"{stage.key} {os.getpid()} {machine.device}\n")
    attempt = runs(store).count(stage.key)
    for key in stage.inputs:
        assert store.is_done(Stage("poison", key, (), {}, "")), (
            f"{stage.key} started before {key} was there"
        )
    if payload.get("print"):
        print(payload["print"])
        print("to stderr", file=sys.stderr)
        on_log(f"threads {os.environ.get('OMP_NUM_THREADS')}")
    on_progress(0.5, "half way")
    if payload.get("child"):  # a child process of the stage's own, such as a decoder
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (store.root / "child").write_text(str(child.pid))
    end = time.monotonic() + payload.get("sleep", 0.0)
    while time.monotonic() < end:
        time.sleep(0.01)
    if attempt <= payload.get("killed", 0):
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if "exit" in payload:
        sys.exit(payload["exit"])
    if "os_exit" in payload:
        os._exit(payload["os_exit"])
    if attempt <= payload.get("raises", 0):
        raise ValueError("the plugin broke")
    if attempt <= payload.get("full", 0):
        try:
            raise OSError(errno.ENOSPC, "cannot write to /the/store: the disk is full")
        except OSError as error:
            raise RuntimeError("wrapped by a library") from error
    if not payload.get("publishes_nothing"):
        publish(stage, store, machine)


def publish(stage: Stage, store: Store, machine: Machine) -> None:
    """A result that depends on nothing but the stage."""
    if stage.kind == "train":
        cell = {name: value for name, value in stage.payload["cell"].items() if name != "needs"}
        store.publish_record(Record(**cell, test_acc=len(stage.key) / 10))
        return
    folder = store.root / "artifacts" / stage.key[:2] / stage.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(
        json.dumps({"schema": 1, "key": stage.key, "files": {}, "device": machine.device})
    )


def alive(pid: int) -> bool:
    """Does the process run? One that is dead but not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


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


def events(path: Path) -> list[dict[str, Any]]:
    """The lines of an event log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
