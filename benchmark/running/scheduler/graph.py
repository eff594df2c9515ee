"""Find which stages must run, and in which order, from the plan and the finished stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.planning.stage import Stage
    from benchmark.storage.store import Store


@dataclass(frozen=True)
class Graph:
    """The plan as a graph.

    Attributes:
        stages: key -> stage, each once, in topological order.
        consumers: key -> keys of the stages that read its result.
        cached: keys whose results are there.
        needed: keys of the stages to run. A stage without a result whose consumers all have theirs
            is neither cached nor needed.
        priority: for each needed stage its cost plus the longest cost after it.
        nearest: for each needed stage its cost plus the cost of the stages that lead from it to the
            nearest finished cell.
    """

    stages: Mapping[str, Stage]
    consumers: Mapping[str, tuple[str, ...]]
    cached: frozenset[str]
    needed: frozenset[str]
    priority: Mapping[str, float]
    nearest: Mapping[str, float]

    @classmethod
    def build(cls, stages: Sequence[Stage], store: Store, policy: str) -> Graph:
        """Look up which stages are done and mark those that must run.

        Raises:
            ValueError: if a stage reads a result that no stage before it makes, or a key stands for
                two different stages.
        """
        by_key = _by_key(stages)
        consumers: dict[str, list[str]] = {key: [] for key in by_key}
        for stage in by_key.values():
            for key in dict.fromkeys(stage.inputs):
                consumers[key].append(stage.key)
        cached: frozenset[str] = frozenset()
        if policy != "force":
            cached = frozenset(key for key, stage in by_key.items() if store.is_done(stage))
        needed: set[str] = set()
        priority: dict[str, float] = {}
        nearest: dict[str, float] = {}
        for key, stage in reversed(by_key.items()):  # consumers come before what they read
            readers = {other for other in consumers[key] if other in needed}
            if key in cached or (consumers[key] and not readers):
                continue
            needed.add(key)
            priority[key] = stage.cost + max((priority[other] for other in readers), default=0.0)
            # A victim of purified images reads the poison too, yet the purification is in between.
            after = (other for other in readers if readers.isdisjoint(by_key[other].inputs))
            nearest[key] = stage.cost + min((nearest[other] for other in after), default=0.0)
        return cls(
            by_key,
            {key: tuple(value) for key, value in consumers.items()},
            cached,
            frozenset(needed),
            priority,
            nearest,
        )

    def downstream(self, key: str) -> Iterator[Stage]:
        """Yield the needed stages that depend on ``key``, directly or not, in plan order."""
        hit = {key}
        for stage in self.stages.values():
            if stage.key in self.needed and not hit.isdisjoint(stage.inputs):
                hit.add(stage.key)
                yield stage


def _by_key(stages: Sequence[Stage]) -> dict[str, Stage]:
    by_key: dict[str, Stage] = {}
    for stage in stages:
        if stage.key in by_key:
            other = by_key[stage.key]
            if (other.kind, other.inputs) != (stage.kind, stage.inputs):
                raise ValueError(
                    f'key {stage.key} stands for "{other.label}" and for "{stage.label}"; '
                    "keys must differ"
                )
            continue
        for key in stage.inputs:
            if key not in by_key:
                raise ValueError(
                    f'stage "{stage.label}" reads {key}, which no stage before it makes; '
                    "list stages in topological order"
                )
        by_key[stage.key] = stage
    return by_key
