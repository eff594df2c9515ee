"""Simulate a run from the seconds of its stages, in no time and without a worker."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.catalogue.registry import ROOT
from benchmark.planning.plan import Plan
from benchmark.planning.stage import Stage
from benchmark.running.last_run import records_of
from benchmark.running.scheduler.graph import Graph
from benchmark.running.scheduler.order import Ready
from benchmark.storage.record import Record
from benchmark.storage.store import Store

BASELINES = ROOT / "results" / "baselines"
SECONDS_A_PASS = 1.5  # for stages without a record


def recorded(suite: str) -> list[Record]:
    """The records of a suite that ship with the project; none if it has no baseline."""
    lines, selection = BASELINES / f"{suite}.jsonl", BASELINES / suite / "selection.json"
    if lines.is_file():
        return [Record.from_json(json.loads(line)) for line in lines.read_text().splitlines()]
    if not selection.is_file():
        return []
    cells = json.loads(selection.read_text())["cells"]
    labels = {item["key"]: {k: v for k, v in item.items() if k != "key"} for item in cells}
    return records_of(Store(BASELINES / "store"), labels)


def seconds_of(plan: Plan, records: Sequence[Record]) -> dict[str, float]:
    """The recorded seconds of each stage, by key; those of other stages follow from their cost."""
    seconds = {stage.key: SECONDS_A_PASS * stage.cost for stage in plan.stages}
    kinds = {stage.key: stage.kind for stage in plan.stages}
    known = {(record.attack, record.defense, record.seed): record.seconds for record in records}
    for cell in plan.cells:
        own = known.get((str(cell.attack), str(cell.defense), cell.seed), {})
        seconds |= {key: own[kinds[key]] for key in cell.stages if kinds[key] in own}
    return seconds


def simulate(
    stages: Sequence[Stage],
    seconds: Mapping[str, float],
    slots: int,
    folder: Path,
    longest_only: bool = False,
) -> tuple[float, list[tuple[float, str]]]:
    """Run stages on ``slots`` slots, as the driver does, from an empty store.

    Args:
        stages: a plan.
        seconds: how long each stage takes, by key.
        slots: how many run at once.
        folder: a folder that does not exist.
        longest_only: whether the first slot too takes the longest path.

    Returns:
        The time of the end, and the time and label of each finished cell, in order.
    """
    graph = Graph.build(stages, Store(folder), "missing")
    ready, waiting = Ready(graph), dict(graph.stages)
    lacking = {key: set(stage.inputs) for key, stage in waiting.items()}
    free, running, now = set(range(slots)), list[tuple[float, int, str]](), 0.0
    cells = list[tuple[float, str]]()
    for key, inputs in lacking.items():
        if not inputs:
            ready.push(key)
    while waiting or running:
        for slot in sorted(free, reverse=True):
            key = ready.pop(1 if longest_only else slot, slots, waiting, bool(cells))
            if key is None:
                break
            del waiting[key]
            free.discard(slot)
            heapq.heappush(running, (now + seconds[key], slot, key))
        now, slot, key = heapq.heappop(running)
        free.add(slot)
        if graph.stages[key].kind == "train":
            cells.append((now, graph.stages[key].label))
        for other in graph.consumers[key]:
            lacking[other].discard(key)
            if not lacking[other]:
                ready.push(other)
    return now, cells
