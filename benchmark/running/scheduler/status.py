"""Keep the state of a run that displays show: counts, running stages, accuracies, time left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.grid import Grid

TELLING_SHARE = 0.05  # the share done from which a running stage shows how long it takes
# Below this cost a stage spends its time on work that all stages have, so its time does not show
# how long a unit of cost takes.
TELLING_COST = 0.5


@dataclass
class Running:
    """A stage on a slot: its ``share`` done is in [0, 1], ``since`` is on the status's clock."""

    stage: Stage
    device: str
    since: float
    share: float = 0.0
    note: str = ""


@dataclass
class Status:
    """The counts of a run; the driver changes them and displays read them.

    Attributes:
        total: the number of stages to run.
        cached: the number of stages whose results were there.
        slots: the number of stages that can run at once.
        waiting: key -> stage, for stages that have not started and are not blocked.
        done, failed, blocked: the numbers of such stages.
        running: slot -> its stage.
        grid: the accuracies so far.
        clock: tells the time in seconds; tests replace it.
    """

    total: int
    cached: int
    slots: int
    waiting: dict[str, Stage]
    done: int = 0
    failed: int = 0
    blocked: int = 0
    running: dict[int, Running] = field(default_factory=dict)
    grid: Grid = field(default_factory=Grid)
    clock: Callable[[], float] = time.monotonic
    _spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds by kind
    _paid: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # cost by kind

    def learn(self, stage: Stage, seconds: float) -> None:
        """Learn from the time that a finished stage took."""
        if stage.cost >= TELLING_COST:
            self._spent[stage.kind] += seconds
            self._paid[stage.kind] += stage.cost

    def seconds_left(self) -> float | None:
        """Estimate the time left if all slots stay busy; None while nothing is known.

        The rest of a running stage follows from its share done. Finished and running stages of a
        kind give the seconds for a unit of cost. A kind that has none yet uses the mean of all
        kinds. The estimate is at least the rest of the slowest running stage.
        """
        spent, paid = dict(self._spent), dict(self._paid)
        for item in self.running.values():
            kind, cost = item.stage.kind, item.stage.cost
            if item.share >= TELLING_SHARE and cost >= TELLING_COST:
                spent[kind] = spent.get(kind, 0.0) + self.clock() - item.since
                paid[kind] = paid.get(kind, 0.0) + item.share * cost
        if not sum(paid.values()):
            return None
        overall = sum(spent.values()) / sum(paid.values())

        def seconds(stage: Stage) -> float:
            known = paid.get(stage.kind)
            return stage.cost * (spent[stage.kind] / known if known else overall)

        def rest(item: Running) -> float:
            elapsed = self.clock() - item.since
            if item.share >= TELLING_SHARE:
                return elapsed * (1 / item.share - 1)
            return max(seconds(item.stage) - elapsed, 0.0)

        rests = [rest(item) for item in self.running.values()]
        together = sum(seconds(stage) for stage in self.waiting.values()) + sum(rests)
        return max([together / max(min(self.slots, len(self.waiting) + len(rests)), 1), *rests])

    def line(self) -> str:
        """Return the counts and the time left.

        For example ``3 done, 2 cached, 2 running, 0 failed, 9 waiting; about 4 min left``.
        """
        counts = (
            f"{self.done} done, {self.cached} cached, {len(self.running)} running, "
            f"{self.failed} failed, {len(self.waiting)} waiting"
        )
        if self.blocked:
            counts += f", {self.blocked} blocked"
        left = self.seconds_left()
        return f"{counts}; about {duration(left)} left" if left is not None else counts


def duration(seconds: float) -> str:
    """Format a time, such as ``42 s``, ``5 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
