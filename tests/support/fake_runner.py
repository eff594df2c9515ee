"""Stages for the scheduler's tests, and a runner of them.

The runner does in plain files, without torch, what the parameters of a stage's method say.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.spec import SUBSET_PARAMS, Spec, Value
from benchmark.planning.jobs import (
    Data,
    Job,
    Method,
    PoisonJob,
    PurifyJob,
    TrainJob,
    Victim,
)
from benchmark.planning.stage import Stage
from benchmark.running.scheduler.outcome import Machine, Outcome
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.store import Store

RUNNER = "support.fake_runner:run"
TWO = ("cpu", "cpu")


DATA = Data(Spec("toy", dict.fromkeys(SUBSET_PARAMS[:3], 0)), "f" * 64)  # without later ones
EM = Method(Spec("em"), 1)


def make(
    kind: str, name: str, inputs: tuple[str, ...] = (), cost: float = 1.0, **does: Value
) -> Stage:
    """A stage whose key is its name; what it ``does`` are parameters of its method."""
    method = Method(Spec("fake", does), 1)
    read = inputs[0] if inputs else ""
    jobs: dict[str, Job] = {
        "poison": PoisonJob(DATA, method, None, None, None, 0, "fp32"),
        "purify": PurifyJob(DATA, method, read, 1.0, 0, "fp32"),
        "train": TrainJob(
            DATA,
            (EM,),
            method,
            Victim("v"),
            get_protocol("quick"),
            read,
            None,
            1.0,
            0,
            0,
            "fp32",
        ),
    }
    return Stage(name, inputs, jobs[kind], f"{kind} {name}", cost)


def cell(
    key: str,
    attack: str = "em",
    defense: str = "none",
    *,
    inputs: tuple[str, ...] = (),
    victim: str = "v",
    cost: float = 1.0,
    **does: Value,
) -> Stage:
    """A train stage of these methods; its accuracy is the parameter ``acc``."""
    stage = make("train", key, inputs, cost, **does)
    assert isinstance(stage.job, TrainJob)
    job = replace(
        stage.job,
        attacks=(Method(Spec(attack), 1),),
        defense=Method(Spec("fake", does, label=defense), 1),
        victim=Victim(victim),
    )
    return replace(stage, job=job, label=f"train {attack} + {defense}")


def _does(stage: Stage) -> Mapping[str, Any]:
    job = stage.job
    return (job.defense if isinstance(job, (PurifyJob, TrainJob)) else job.attack).spec.params


def runs(store: Store) -> list[str]:
    """Return the names of the stages that began, in order, over all runs."""
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
    """Do the work of ``stage``; the signature is that of a runner."""
    does = _does(stage)
    with (store.root / "journal").open("a") as journal:
        journal.write(f"{stage.key} {os.getpid()} {machine.device}\n")
    attempt = runs(store).count(stage.key)
    for key in stage.inputs:
        assert store.is_done(make("poison", key)), f"{stage.key} started before {key} was there"
    if does.get("print"):
        print(does["print"])
        print("to stderr", file=sys.stderr)
        on_log(f"threads {os.environ.get('OMP_NUM_THREADS')}")
    on_progress(0.5, "half way")
    if does.get("child"):  # a child process of the stage's own, such as a decoder
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (store.root / "child").write_text(str(child.pid))
    end = time.monotonic() + does.get("sleep", 0.0)
    while time.monotonic() < end:
        time.sleep(0.01)
    if attempt <= does.get("killed", 0):
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if "exit" in does:
        sys.exit(does["exit"])
    if "os_exit" in does:
        os._exit(does["os_exit"])
    if attempt <= does.get("raises", 0):
        raise ValueError("the plugin broke")
    if attempt <= does.get("full", 0):
        try:
            raise OSError(errno.ENOSPC, "cannot write to /the/store: the disk is full")
        except OSError as error:
            raise RuntimeError("wrapped by a library") from error
    if not does.get("publishes_nothing"):
        publish(stage, store, machine)


def publish(stage: Stage, store: Store, machine: Machine) -> None:
    """A result that depends on nothing but the stage."""
    if isinstance(stage.job, TrainJob):
        record = stage.job.record(stage.key)
        acc = _does(stage).get("acc", len(stage.key) / 10)
        store.publish_record(replace(record, test_acc=acc))
        return
    folder = store.root / "artifacts" / stage.key[:2] / stage.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(
        json.dumps({"schema": 1, "key": stage.key, "files": {}, "device": machine.device})
    )


def alive(pid: int) -> bool:
    """Say whether the process runs; one that is dead but not waited for does not."""
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
    """Read the lines of an event log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
