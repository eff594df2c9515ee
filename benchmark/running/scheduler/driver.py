"""Drive a run: hand ready stages to slots, book their reports, and stop in good order."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmark.planning.jobs import TrainJob
from benchmark.running.scheduler.grid import Grid
from benchmark.running.scheduler.order import Ready
from benchmark.running.scheduler.outcome import Failure, Machine, Outcome
from benchmark.running.scheduler.signals import on_signals
from benchmark.running.scheduler.status import Running, Status
from benchmark.storage.atomic import FULL_DISK
from benchmark.storage.record import Record

if TYPE_CHECKING:
    from benchmark.planning.stage import Stage
    from benchmark.running.scheduler.display import Display
    from benchmark.running.scheduler.events import EventLog
    from benchmark.running.scheduler.executors import Executor
    from benchmark.running.scheduler.graph import Graph
    from benchmark.storage.store import Store

POLL_SECONDS = 0.2  # a signal is seen, and the display redrawn, within this time


@dataclass(frozen=True)
class Setup:
    """The options of a run, which ``run_plan`` explains."""

    store: Store
    machine: Machine
    slots: tuple[str, ...]
    executor: str
    policy: str
    runner: str
    retries: int


class Driver:
    """One run of a graph. It has a single thread: executors report from within ``wait``."""

    def __init__(self, graph: Graph, setup: Setup, display: Display, log: EventLog) -> None:
        self._graph, self._setup, self._display, self._log = graph, setup, display, log
        self._store = setup.store
        self._begin = time.monotonic()
        waiting = {key: stage for key, stage in graph.stages.items() if key in graph.needed}
        self._status = Status(len(graph.needed), len(graph.cached), len(setup.slots), waiting)
        self._order = {key: number for number, key in enumerate(graph.stages)}
        self._lacking = {
            key: {other for other in stage.inputs if other in graph.needed}
            for key, stage in waiting.items()
        }
        self._ready = Ready(graph)
        self._deaths: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._warnings: dict[str, None] = {}  # each text once, in order
        self._interrupted = False
        self._stopped = ""

    def run(self) -> Outcome:
        """Run the needed stages; return when no other can run or the run was stopped."""
        status, setup = self._status, self._setup
        try:
            if status.total and setup.policy != "collect":
                self._make_grid()
            self._display.open(status, self._headline())
            self._event(
                "start",
                stages=len(self._graph.stages),
                cached=status.cached,
                to_run=status.total,
                slots=list(setup.slots),
                executor=setup.executor,
                policy=setup.policy,
            )
            for key in sorted(self._graph.cached, key=self._order.__getitem__):
                self._stage_event("stage_cached", self._graph.stages[key])
            if setup.policy == "collect":
                self._collect_failures()
            elif status.total:
                self._work()
        finally:
            outcome = self._outcome()
            self._event(
                "end",
                done=outcome.done,
                cached=outcome.cached,
                failed=outcome.failed,
                blocked=outcome.blocked,
                missing=outcome.missing,
                seconds=round(outcome.seconds, 3),
            )
            self._display.close(outcome.summary)
        return outcome

    def _make_grid(self) -> None:
        """Fill the table with the results that are there."""
        grid = self._status.grid = Grid(self._graph.stages.values())
        for key in sorted(self._graph.cached, key=self._order.__getitem__):
            grid.finish(key, self._accuracy(self._graph.stages[key]))

    def _work(self) -> None:
        for key, inputs in self._lacking.items():
            if not inputs:
                self._ready.push(key)
        executor = self._make_executor()
        # The handlers stay until the workers are gone, so that a second Ctrl-C changes nothing.
        with on_signals(lambda: self._on_signal(executor)):
            try:
                while not self._interrupted:
                    self._fill(executor)
                    if not self._status.running:
                        break
                    executor.wait(POLL_SECONDS)
                    self._display.tick()
            except KeyboardInterrupt:
                self._interrupted = True
            finally:
                executor.close()
        if self._interrupted:
            running = [item.stage.label for item in self._status.running.values()]
            self._event("interrupted", running=running)

    def _make_executor(self) -> Executor:
        from benchmark.running.scheduler.executors import Inline, Local

        setup = self._setup
        kind = Inline if setup.executor == "inline" else Local
        return kind(self._store, setup.machine, setup.slots, setup.runner, self._on_report)

    def _on_signal(self, executor: Executor) -> None:
        self._interrupted = True
        executor.interrupt()

    # Hand out stages

    def _fill(self, executor: Executor) -> None:
        """Start ready stages on the free slots."""
        for slot, device in reversed(list(enumerate(self._setup.slots))):
            if slot in self._status.running:
                continue
            stage = self._next(slot)
            if stage is None:
                return
            self._status.running[slot] = Running(stage, device, self._status.clock())
            self._stage_event("stage_started", stage, slot=slot, device=device)
            self._display.started(f"start   {stage.label} on {device}")
            executor.start(slot, stage)

    def _next(self, slot: int) -> Stage | None:
        status = self._status
        while not self._stopped:
            key = self._ready.pop(slot, status.slots, status.waiting, status.grid.found > 0)
            if key is None:
                return None
            stage = status.waiting.pop(key)
            if self._setup.policy == "missing" and self._store.is_done(stage):
                # Another run on this store has done it meanwhile.
                status.cached += 1
                status.total -= 1
                self._stage_event("stage_cached", stage)
                self._release(stage)
                status.grid.finish(key, self._accuracy(stage))
                self._display.filled()
                continue
            return stage
        return None

    def _release(self, stage: Stage) -> None:
        """Make the stages ready that waited for ``stage`` alone."""
        for key in self._graph.consumers[stage.key]:
            lacking = self._lacking.get(key, set())
            if stage.key in lacking:
                lacking.discard(stage.key)
                if not lacking and key in self._status.waiting:
                    self._ready.push(key)

    # Book reports

    def _on_report(self, slot: int, report: Mapping[str, Any]) -> None:
        item = self._status.running.get(slot)
        if item is None:
            return  # a line printed between two stages
        kind = report["kind"]
        if kind == "progress":
            item.share, item.note = report["share"], report["note"]
            self._display.tick()
        elif kind in ("log", "warning"):
            self._stage_event("log", item.stage, slot=slot, line=report["line"])
            if kind == "warning" and report["line"] not in self._warnings:
                self._warnings[report["line"]] = None
                self._display.say(report["line"])
        else:
            del self._status.running[slot]
            with self._full_disk_stops():
                book = {"done": self._on_done, "failed": self._on_failed, "died": self._on_died}
                book[kind](slot, item, report)

    def _on_done(self, slot: int, item: Running, report: Mapping[str, Any]) -> None:
        seconds = report["seconds"]
        self._status.done += 1
        self._status.learn(item.stage, seconds)
        self._release(item.stage)
        accuracy = self._accuracy(item.stage)
        known = {} if accuracy is None else {"test_acc": accuracy}
        self._stage_event("stage_done", item.stage, slot=slot, seconds=round(seconds, 3), **known)
        shown = "" if accuracy is None else f"{100 * accuracy:.1f} %  "
        self._display.say(f"done    {item.stage.label}  {shown}{seconds:.1f} s")
        self._status.grid.finish(item.stage.key, accuracy)
        self._display.filled()
        self._store.clear_failure(item.stage.key)

    def _accuracy(self, stage: Stage) -> float | None:
        """Read the accuracy of a finished cell; None for other stages and unreadable records.

        The report, which follows the run, names such a record; the other cells need not wait.
        """
        if stage.kind != "train":
            return None
        try:
            return self._store.record(stage.key).test_acc
        except (OSError, ValueError):
            return None

    def _on_failed(self, slot: int, item: Running, report: Mapping[str, Any]) -> None:
        self._fail(
            slot,
            item.stage,
            report["error"],
            report["traceback"],
            report["seconds"],
            where=report["where"],
            full_disk=report["full_disk"],
        )

    def _on_died(self, slot: int, item: Running, report: Mapping[str, Any]) -> None:
        stage, how = item.stage, _cause_of_death(report["code"])
        self._deaths[stage.key] += 1
        if self._deaths[stage.key] <= self._setup.retries:
            self._stage_event(
                "stage_retried", stage, slot=slot, error=how, attempt=self._deaths[stage.key] + 1
            )
            self._display.say(
                f"retry   {stage.label}: its worker {how}; once more on a fresh worker"
            )
            self._status.waiting[stage.key] = stage
            self._ready.push(stage.key)
            return
        times = f"{self._deaths[stage.key]} times" if self._deaths[stage.key] > 1 else "once"
        error = f"the worker {how}, {times}{_memory_hint(report['code'])}"
        tail = report["tail"]
        self._fail(
            slot,
            stage,
            error,
            f"Last output of the worker:\n{tail}" if tail else "",
            self._status.clock() - item.since,
        )

    def _fail(
        self,
        slot: int,
        stage: Stage,
        error: str,
        traceback: str,
        seconds: float,
        where: str = "",
        full_disk: bool = False,
    ) -> None:
        self._status.failed += 1
        self._status.grid.fail(stage.key)
        # A full disk is no fault of the stage: the store keeps no failure, and the stages that
        # depend on it wait for the next run.
        file = self._store.failure_file(stage.key) if traceback and not full_disk else None
        self._failures.append(Failure(stage.key, stage.label, error, where, file))
        self._stage_event("stage_failed", stage, slot=slot, seconds=round(seconds, 3), error=error)
        self._display.say(f"FAILED  {stage.label}  {seconds:.1f} s: {error}")
        if where:
            self._display.say(f"        at {where}")
        if full_disk:
            self._stop(error)
            return
        self._store.publish_failure(
            stage.key, stage.label, error, traceback, _failed_record(stage, error)
        )
        if file is not None:
            self._display.say(f"        full traceback: {file}")
        for other in self._graph.downstream(stage.key):
            if self._status.waiting.pop(other.key, None) is None:
                continue  # blocked by an earlier failure
            self._status.blocked += 1
            self._status.grid.fail(other.key)
            reason = f"{stage.label} failed: {error}"
            self._stage_event("blocked", other, error=reason)
            if other.kind == "train":
                self._store.publish_failure(
                    other.key, other.label, reason, "", _failed_record(other, reason)
                )
        self._display.filled()

    # Stop and report

    @contextmanager
    def _full_disk_stops(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            self._stop(str(error.strerror))

    def _stop(self, reason: str) -> None:
        """Start no further stage; those that run may end."""
        if not self._stopped:
            self._stopped = f"Nothing more is started: {reason}"
            self._event("stopped", error=reason)
            self._display.say(self._stopped)

    def _event(self, event: str, **values: object) -> None:
        try:
            self._log.write(event, **values)
        except OSError as error:
            self._stop(str(error.strerror))

    def _stage_event(self, event: str, stage: Stage, **values: object) -> None:
        self._event(event, key=stage.key, label=stage.label, **values)

    def _collect_failures(self) -> None:
        """Count the failures that earlier runs left, for the policy ``collect``."""
        for key, stage in list(self._status.waiting.items()):
            failure = self._store.failure(key)
            if failure is not None:
                self._status.waiting.pop(key)
                self._status.failed += 1
                self._failures.append(Failure(key, stage.label, str(failure.get("error", ""))))

    def _headline(self) -> str:
        status, number = self._status, len(self._graph.stages)
        head = f"{number} stage{'s' * (number != 1)}: {status.cached} cached"
        if self._setup.policy == "collect":
            return f"{head}, {status.total} missing"
        where = f" on {status.slots} slot{'s' * (status.slots != 1)}" if status.total else ""
        return f"{head}, {status.total} to run{where}"

    def _outcome(self) -> Outcome:
        status = self._status
        return Outcome(
            done=status.done,
            cached=status.cached,
            failed=status.failed,
            blocked=status.blocked,
            missing=status.total - status.done - status.failed - status.blocked,
            interrupted=self._interrupted,
            stopped=self._stopped,
            failures=tuple(self._failures),
            warnings=tuple(self._warnings),
            seconds=time.monotonic() - self._begin,
        )


def _failed_record(stage: Stage, error: str) -> Record | None:
    """Return the failed record of a train stage's cell; None for other stages."""
    if not isinstance(stage.job, TrainJob):
        return None
    return replace(stage.job.record(stage.key), status="failed", error=error)


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    known = {int(item): item.name for item in signal.Signals}
    return f"was killed by signal {-code} ({known.get(-code, 'unknown')})"


def _memory_hint(code: int) -> str:
    if code != -signal.SIGKILL:
        return ""
    return (
        "; a system short of memory does that: run fewer slots at once, smaller batches or "
        "fewer images"
    )
