"""Choose which ready stage a free slot starts."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.planning.stage import Stage
    from benchmark.running.scheduler.graph import Graph

# The longest path can wait while it takes less than this share of the time left. Estimates may be
# wrong by a factor of two.
SPARE = 0.5


class Ready:
    """The stages whose inputs are there, in two orders.

    Every slot but the first starts the stage with the longest path behind it. The first slot starts
    the stage that is nearest to a finished cell, so that results appear from the first minute on,
    as long as the longest path can wait. Until the first result is there, it does so in any case.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._place = {key: number for number, key in enumerate(graph.stages)}
        # Both heaps hold every ready stage. One that the other heap gave away is skipped.
        self._longest: list[tuple[float, int, str]] = []
        self._nearest: list[tuple[float, int, str]] = []

    def push(self, key: str) -> None:
        """Add a stage; of stages that are equal otherwise, the first one of the plan goes first."""
        place = self._place[key]
        heapq.heappush(self._longest, (-self._graph.priority[key], place, key))
        heapq.heappush(self._nearest, (self._graph.nearest[key], place, key))

    def pop(
        self, slot: int, slots: int, waiting: Mapping[str, Stage], has_result: bool
    ) -> str | None:
        """Take the next stage for a slot; None if no stage is ready.

        Args:
            slot: the number of the slot, from 0. Ask for slot 0 last, so that the longest paths
                are with the others.
            slots: how many slots there are.
            waiting: key -> stage, of all stages that have not started.
            has_result: whether a cell has its result.
        """
        for heap in (self._longest, self._nearest):
            while heap and heap[0][2] not in waiting:
                heapq.heappop(heap)
        if not self._longest:
            return None
        heap = self._longest
        if slot == 0 and (not has_result or self._longest_can_wait(slots, waiting)):
            heap = self._nearest
        return heapq.heappop(heap)[2]

    def _longest_can_wait(self, slots: int, waiting: Mapping[str, Stage]) -> bool:
        """Whether the longest path ends well before the slots have done all that waits.

        On one slot it always can, since no order takes longer than another there.
        """
        left = sum(stage.cost for stage in waiting.values()) / slots
        return slots == 1 or -self._longest[0][0] < SPARE * left
