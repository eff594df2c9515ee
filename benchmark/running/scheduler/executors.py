"""Run stages in this process (``Inline``) or in one worker process for each slot (``Local``).

An executor takes one stage at a time for each slot, and passes reports to a listener: ``progress``,
``log``, ``warning``, ``done``, ``failed``, ``died``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Pipe, wait
from typing import IO, Any, Protocol

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.scheduler.task import Task
from benchmark.running.scheduler.worker import perform
from benchmark.storage.store import Store

Listener = Callable[[int, Mapping[str, Any]], None]  # slot, report
GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
TAIL_LINES = 20  # the last lines of a dead worker's output, kept for its failure
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
# By default glibc returns large blocks to the system and asks for them again in the next step.
# Both cost page faults.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# torch's deterministic mode refuses cuBLAS without this setting.
CUDA_DETERMINISM = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
WORKER_SETTINGS = {
    **ONE_THREAD,
    **KEEP_MEMORY,
    **CUDA_DETERMINISM,
    "PYTHONFAULTHANDLER": "1",
}
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from benchmark.running.scheduler.worker import main; main(int(sys.argv[1]))"
)


class Executor(Protocol):
    """The methods of an executor that the driver calls."""

    def start(self, slot: int, stage: Stage) -> None:
        """Hand ``stage`` to a free slot."""

    def wait(self, seconds: float) -> None:
        """Pass reports to the listener, until some have come or ``seconds`` are over."""

    def interrupt(self) -> None:
        """Interrupt the run; the signal handler calls this in the main thread."""

    def close(self) -> None:
        """End all stages that still run, promptly."""


class Inline:
    """Run stages in this process, one after another."""

    def __init__(
        self, store: Store, machine: Machine, slots: Sequence[str], runner: str, listener: Listener
    ) -> None:
        self._store, self._machine, self._slots = store, machine, slots
        self._runner, self._listener = runner, listener
        self._waiting: tuple[int, Stage] | None = None
        self._interruptible = False
        self._interrupted = False

    def start(self, slot: int, stage: Stage) -> None:
        self._waiting = slot, stage

    def wait(self, seconds: float) -> None:
        """Run the waiting stage to its end; KeyboardInterrupt passes through."""
        # Set before the flag is read, so that no signal is lost between the two.
        self._interruptible = True
        if self._interrupted or self._waiting is None:
            return
        (slot, stage), self._waiting = self._waiting, None
        task = Task(stage, replace(self._machine, device=self._slots[slot]))
        try:
            report = perform(
                Task.from_json(task.to_json()),  # exactly what a worker would get
                self._store,
                self._runner,
                lambda message: self._listener(slot, message),
            )
        finally:
            self._interruptible = False
        self._listener(slot, report)

    def interrupt(self) -> None:
        self._interrupted = True
        if self._interruptible:
            self._interruptible = False  # a second signal must not raise during the clean-up
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


class Local:
    """Run stages in worker processes, one for each slot.

    A worker starts with the first stage of its slot, lives on for the next ones, and is replaced
    when it dies.
    """

    def __init__(
        self, store: Store, machine: Machine, slots: Sequence[str], runner: str, listener: Listener
    ) -> None:
        setup = {"store": str(store.root.absolute()), "runner": runner}
        self._setup = json.dumps(setup).encode()
        self._machine, self._slots, self._listener = machine, slots, listener
        self._workers: dict[int, _Worker] = {}

    def start(self, slot: int, stage: Stage) -> None:
        task = Task(stage, replace(self._machine, device=self._slots[slot])).to_json()
        worker = self._workers.get(slot)
        if worker is not None:
            try:
                worker.send(task)
            except OSError:  # it died while idle
                worker.bury()
            else:
                worker.busy = True
                return
        worker = self._workers[slot] = _Worker()
        worker.busy = True
        with suppress(OSError):  # a worker that dies at once is found dead by wait
            worker.send(self._setup)
            worker.send(task)

    def wait(self, seconds: float) -> None:
        by_source: dict[Any, int] = {}
        for slot, worker in self._workers.items():
            by_source[worker.pipe] = slot
            if not worker.output_ended:
                by_source[worker.output] = slot
        ready: list[Any] = wait(list(by_source), seconds)
        for source in ready:
            slot = by_source[source]
            found = self._workers.get(slot)
            if found is None:
                continue  # found dead a moment ago
            if source is found.output:
                self._pass_output(slot, found)
            else:
                self._pass_reports(slot, found)

    def _pass_output(self, slot: int, worker: _Worker) -> None:
        for line in worker.read_output():
            self._listener(slot, {"kind": "log", "line": line})

    def _pass_reports(self, slot: int, worker: _Worker) -> None:
        try:
            while worker.pipe.poll():
                report = json.loads(worker.pipe.recv_bytes())
                if report["kind"] in ("done", "failed"):
                    self._pass_output(slot, worker)  # what a stage printed belongs to it
                    worker.busy = False
                self._listener(slot, report)
        except (EOFError, OSError):
            del self._workers[slot]
            code, lines = worker.bury()
            for line in lines:
                self._listener(slot, {"kind": "log", "line": line})
            if worker.busy:
                self._listener(slot, {"kind": "died", "code": code, "tail": "\n".join(worker.tail)})

    def interrupt(self) -> None:
        pass  # the driver sees its flag within one wait

    def close(self) -> None:
        """End the workers with SIGTERM, and with SIGKILL those that live after two seconds.

        Results are published atomically, so no file stays half written.
        """
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers.values():
            worker.bury(max(deadline - time.monotonic(), 0.0))
        self._workers.clear()


class _Worker:
    """A worker process with its pipe and its output.

    It is a new interpreter, not a fork, and never imports the caller's ``__main__``. It leads a
    process group, so that Ctrl-C on the terminal does not reach it and its children end with it.
    """

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", _BOOT, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **WORKER_SETTINGS},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self.output_ended = False
        self.busy = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""

    def send(self, message: bytes) -> None:
        self.pipe.send_bytes(message)

    def read_output(self) -> list[str]:
        """Return the lines printed since the last call; an unfinished line waits for its end."""
        data = b""
        with suppress(BlockingIOError):
            while chunk := os.read(self.output.fileno(), 1 << 16):
                data += chunk
            # An empty read is the end; a read raises while there is nothing to read yet.
            self.output_ended = True
        *lines, self._partial = (self._partial + data).split(b"\n")
        if self.output_ended and self._partial:
            lines, self._partial = [*lines, self._partial], b""
        texts = [line.decode(errors="replace").rstrip() for line in lines if line.strip()]
        self.tail.extend(texts)
        return texts

    def signal(self, number: signal.Signals) -> None:
        """Signal the worker and its children, unless it has been waited for."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def bury(self, grace: float = 0.0) -> tuple[int, list[str]]:
        """Wait ``grace`` seconds for the end of the process, then force it.

        Returns:
            The exit code, or minus the signal's number; and the last lines printed.
        """
        if grace:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        # A worker that is dead already keeps its exit code; its children are killed.
        self.signal(signal.SIGKILL)
        code = self._process.wait()
        lines = self.read_output()
        self.output.close()
        self.pipe.close()
        return code, lines
