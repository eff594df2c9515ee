"""The worker process: takes stages from a pipe, does them one after another, and reports as JSON.

Messages are JSON in bytes, never pickles. To the worker: first ``{store, runner}``, then a ``Task``
for each stage. From the worker: ``{kind: progress | log | warning | done | failed, ...}``.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from benchmark.planning.stage import Stage
from benchmark.running.crash import crash_line
from benchmark.running.scheduler.outcome import WARNING, Machine
from benchmark.running.scheduler.task import Task
from benchmark.storage.atomic import FULL_DISK
from benchmark.storage.store import Store

PROGRESS_SECONDS = 0.1  # at most one progress message in this time
Runner = Callable[
    [Stage, Store, Machine, Callable[[float, str], None], Callable[[str], None]], None
]


def main(descriptor: int) -> None:
    """Serves one slot until the pipe closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole terminal; the parent decides
    pipe = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    setup = json.loads(inbox.get())
    store = Store(Path(setup["store"]))
    while True:
        task = Task.from_json(inbox.get())
        report = perform(task, store, setup["runner"], lambda message: send(pipe, message))
        send(pipe, report)


def _receive(pipe: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    """Passes messages on. When the parent goes, however it died, this process and its children go too."""
    try:
        while True:
            inbox.put(pipe.recv_bytes())
    except (EOFError, OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def send(pipe: Connection, message: Mapping[str, object]) -> None:
    """Sends one message; a parent that is gone is the receiving thread's affair."""
    try:
        pipe.send_bytes(json.dumps(message).encode())
    except OSError:
        time.sleep(60)  # the receiving thread ends this process at once


def perform(
    task: Task,
    store: Store,
    runner: str,
    tell: Callable[[Mapping[str, object]], None],
) -> dict[str, object]:
    """Does one stage and returns the report, ``done`` or ``failed``; tells of progress and log lines meanwhile.

    KeyboardInterrupt passes through, everything else that the stage raises is reported: a plugin must not end the run.
    """
    stage, last = task.stage, 0.0

    def on_progress(share: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS or share >= 1:
            last = now
            tell({"kind": "progress", "share": min(max(float(share), 0.0), 1.0), "note": str(note)})

    def on_log(line: str) -> None:
        kind = "warning" if str(line).startswith(WARNING) else "log"
        tell({"kind": kind, "line": str(line)})

    start = time.monotonic()
    try:
        resolve(runner)(stage, store, task.machine, on_progress, on_log)
        if not store.is_done(stage):
            raise RuntimeError(
                f'"{stage.label}" ended without an error but published nothing under {stage.key}'
            )
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: the boundary between foreign code and the run
        return {
            "kind": "failed",
            "error": describe(error),
            "where": crash_line(error, map(Path, task.machine.plugins)),
            "traceback": traceback.format_exc(),
            "full_disk": is_full_disk(error),
            "seconds": time.monotonic() - start,
        }
    return {"kind": "done", "seconds": time.monotonic() - start}


def resolve(runner: str) -> Runner:
    """The function named ``module:function``."""
    module, _, name = runner.partition(":")
    function: Runner = getattr(importlib.import_module(module), name)
    return function


def describe(error: BaseException) -> str:
    """One line: the type and the message, without the errno that OSError puts before it."""
    text = (
        str(error.strerror)
        if isinstance(error, OSError) and error.strerror and not error.filename
        else str(error)
    )
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def is_full_disk(error: BaseException | None) -> bool:
    """Was a full disk the reason, however many times the error was wrapped?"""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        error = error.__cause__ or error.__context__
    return False
