"""The state of a run as people see it: counts, what is running, and the time left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmark.planning.stage import Stage

TELLING_SHARE = 0.05  # done, from which on a running stage tells how long it takes
TELLING_COST = 0.5  # a cheaper stage spends its seconds on what every stage has, and tells nothing of a unit of cost


@dataclass
class Running:
    """A stage on a slot. ``share`` done is in [0, 1]; ``since`` is on the status's clock."""

    stage: Stage
    device: str
    since: float
    share: float = 0.0
    note: str = ""


@dataclass
class Status:
    """Counts of a run; the driver changes it and displays read it.

    Attributes:
        total: stages to run.
        cached: stages whose result was there.
        slots: stages that can run at once.
        running: slot -> its stage.
        waiting: key -> stage, for those not started; blocked ones leave it.
        clock: seconds, for tests.
    """

    total: int
    cached: int
    slots: int
    waiting: dict[str, Stage]
    done: int = 0
    failed: int = 0
    blocked: int = 0
    running: dict[int, Running] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds by kind
    _paid: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # cost by kind

    def learn(self, stage: Stage, seconds: float) -> None:
        """Takes in how long a finished stage took."""
        if stage.cost >= TELLING_COST:
            self._spent[stage.kind] += seconds
            self._paid[stage.kind] += stage.cost

    def seconds_left(self) -> float | None:
        """The time left if all slots stay busy, or None while nothing is known. It is no less than what the slowest running stage needs.

        A running stage tells its own time by the share that is done. Finished and running stages tell the seconds of a unit of cost,
        each kind for itself; a kind without any goes by all kinds together.
        """
        spent, paid = dict(self._spent), dict(self._paid)
        for item in self.running.values():
            if item.share >= TELLING_SHARE and item.stage.cost >= TELLING_COST:
                spent[item.stage.kind] = spent.get(item.stage.kind, 0.0) + self.clock() - item.since
                paid[item.stage.kind] = (
                    paid.get(item.stage.kind, 0.0) + item.share * item.stage.cost
                )
        if not sum(paid.values()):
            return None
        overall = sum(spent.values()) / sum(paid.values())

        def seconds(stage: Stage) -> float:
            return stage.cost * (
                spent[stage.kind] / paid[stage.kind] if paid.get(stage.kind) else overall
            )

        def rest(item: Running) -> float:
            elapsed = self.clock() - item.since
            return (
                elapsed * (1 / item.share - 1)
                if item.share >= TELLING_SHARE
                else max(seconds(item.stage) - elapsed, 0.0)
            )

        rests = [rest(item) for item in self.running.values()]
        together = sum(seconds(stage) for stage in self.waiting.values()) + sum(rests)
        return max([together / max(min(self.slots, len(self.waiting) + len(rests)), 1), *rests])

    def line(self) -> str:
        """The counts and the time left, such as ``3 done, 2 cached, 2 running, 0 failed, 9 waiting; about 4 min left``."""
        counts = f"{self.done} done, {self.cached} cached, {len(self.running)} running, {self.failed} failed, {len(self.waiting)} waiting"
        if self.blocked:
            counts += f", {self.blocked} blocked"
        left = self.seconds_left()
        return f"{counts}; about {duration(left)} left" if left is not None else counts


def duration(seconds: float) -> str:
    """``42 s``, ``5 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
