"""Measure the seconds of a stage's work: those that pass, and those that the work itself takes."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping

import torch


class Clock:
    """Counts seconds from its making on; a device decides by which counters.

    Wall seconds pass whoever works, so that they measure the neighbours too. Beside them the clock
    counts on a CPU the seconds for which the cores worked for this process, and on a GPU the
    seconds from the first to the last work of the current stream, by the GPU's own clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._began = None if self._stream is None else _mark(self._stream)
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()

    def seconds(self) -> Mapping[str, float]:
        """Return the seconds so far, under the names that they have in manifests and records.

        These are ``seconds``, wall time, and either ``cpu_seconds``, of all threads of the process
        and of its children that ended, or ``device_seconds``. The clock waits until the GPU has
        done its work.
        """
        if self._stream is None or self._began is None:
            own = {"cpu_seconds": _cpu_seconds() - self._cpu}
        else:
            ended = _mark(self._stream)
            ended.synchronize()
            own = {"device_seconds": self._began.elapsed_time(ended) / 1000}
        counted = {"seconds": time.perf_counter() - self._wall, **own}
        return {name: round(value, 3) for name, value in counted.items()}


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
