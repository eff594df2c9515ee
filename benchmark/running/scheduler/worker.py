"""Do stages in a worker process: take them from a pipe one after another, and report.

Messages are JSON in bytes, never pickles. The worker gets ``{store, runner}`` first, then a
``Task`` for each stage. It sends ``{kind: progress | log | warning | done | failed, ...}``.
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

PROGRESS_SECONDS = 0.1  # the least time between two progress messages
Runner = Callable[
    [Stage, Store, Machine, Callable[[float, str], None], Callable[[str], None]], None
]


def main(descriptor: int) -> None:
    """Serve one slot until the pipe closes."""
    # Ctrl-C reaches all processes of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
    """Pass messages on; end this process and its children when the parent is gone."""
    try:
        while True:
            inbox.put(pipe.recv_bytes())
    except (EOFError, OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def send(pipe: Connection, message: Mapping[str, object]) -> None:
    """Send one message; if the parent is gone, wait for the receiving thread to end the process."""
    try:
        pipe.send_bytes(json.dumps(message).encode())
    except OSError:
        time.sleep(60)  # far longer than the receiving thread needs


def perform(
    task: Task,
    store: Store,
    runner: str,
    tell: Callable[[Mapping[str, object]], None],
) -> dict[str, object]:
    """Do one stage and return the report, ``done`` or ``failed``.

    Progress and log lines go to ``tell`` meanwhile. KeyboardInterrupt passes through. Every other
    error of the stage is reported, since a plugin must not end the run.
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
    except BaseException as error:  # SystemExit too: foreign code must not end the worker
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
    """Return the function named ``module:function``."""
    module, _, name = runner.partition(":")
    function: Runner = getattr(importlib.import_module(module), name)
    return function


def describe(error: BaseException) -> str:
    """Return the type and the message in a line, without the errno of an OSError."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and not error.filename:
        text = str(error.strerror)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether a full disk was the reason, however many times the error was wrapped."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        error = error.__cause__ or error.__context__
    return False
