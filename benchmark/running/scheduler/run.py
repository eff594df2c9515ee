"""Run the stages of a plan on the slots of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.running.scheduler.outcome import Machine, Outcome, default_slots

if TYPE_CHECKING:
    from benchmark.planning.stage import Stage
    from benchmark.running.scheduler.display import Display
    from benchmark.storage.store import Store

RUNNER = "benchmark.running.stages:run_stage"

RETRIES = 2  # the number of fresh workers that a stage gets after its worker died

EXECUTORS = ("inline", "local")

POLICIES = ("missing", "force", "collect")


def run_plan(
    stages: Sequence[Stage],
    store: Store,
    machine: Machine,
    *,
    executor: str = "local",
    slots: Sequence[str] | None = None,
    slots_per_gpu: int = 1,
    workers: int = 0,
    policy: str = "missing",
    display: str | Display = "auto",
    events: Path | None = None,
    runner: str = RUNNER,
    retries: int = RETRIES,
) -> Outcome:
    """Run the stages whose results are missing.

    Args:
        stages: a DAG in topological order; a key that occurs twice is run once.
        store: holds the results; new ones are published in it.
        machine: passed to each stage, with the device of its slot.
        executor: ``local`` (a worker process for each slot) or ``inline`` (in this process, one
            stage after another).
        slots: the device of each slot; by default
            ``default_slots(machine.device, slots_per_gpu, workers)``, called only if a stage is to
            run.
        slots_per_gpu, workers: see ``default_slots``.
        policy: ``missing`` runs the stages without results, ``force`` runs all stages, ``collect``
            runs nothing and counts.
        display: ``auto`` (live on a terminal, else plain), ``live``, ``plain``, ``none``, or a
            ``Display``.
        events: the file that the event log is appended to.
        runner: the name of the function that does a stage, as ``module:function``.
        retries: the number of fresh workers that a stage gets after its worker died.

    Raises:
        ValueError: for an unknown option, or stages that are not a DAG in topological order.
        OSError: if something is to be run and the store cannot be written.
    """
    from benchmark.catalogue.spec import did_you_mean

    for name, value, known in (("executor", executor, EXECUTORS), ("policy", policy, POLICIES)):
        if value not in known:
            raise ValueError(f'unknown {name} "{value}"{did_you_mean(value, list(known))}')
    if slots is not None and not slots:
        raise ValueError('slots is empty; expected at least one device, such as ("cpu",)')

    from benchmark.running.scheduler.display import open_display
    from benchmark.running.scheduler.driver import Driver, Setup
    from benchmark.running.scheduler.events import EventLog
    from benchmark.running.scheduler.graph import Graph

    graph = Graph.build(stages, store, policy)
    running = bool(graph.needed) and policy != "collect"
    if running:
        store.check_writable()
        store.sweep()
        slots = tuple(slots or default_slots(machine.device, slots_per_gpu, workers))
        slots = slots[:1] if executor == "inline" else slots[: len(graph.needed)]
    setup = Setup(store, machine, tuple(slots or ()), executor, policy, runner, retries)
    if not running and isinstance(display, str) and display != "none":
        display = "plain"
    shown = open_display(display)
    with EventLog(events) as log:
        return Driver(graph, setup, shown, log).run()
