"""The clock of a stage: CPU seconds of this process and its children, or seconds of a GPU."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch

from benchmark.running.clock import Clock

CPU = torch.device("cpu")
BURN = "import time\nwhile time.process_time() < 0.3: pass"


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_waiting_takes_wall_seconds_only() -> None:
    clock = Clock(CPU)
    time.sleep(0.2)
    counted = clock.seconds()
    assert set(counted) == {"seconds", "cpu_seconds"}
    assert counted["seconds"] >= 0.2
    assert counted["cpu_seconds"] < 0.1


def test_cpu_seconds_count_all_threads_and_children_that_ended() -> None:
    before = Clock(CPU)
    burn(0.1)
    after = Clock(CPU)  # counts nothing that was done before
    thread = threading.Thread(target=burn, args=(0.15,))
    thread.start()
    thread.join()
    assert 0.15 <= after.seconds()["cpu_seconds"] < 0.25
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert 0.45 <= after.seconds()["cpu_seconds"] < 1
    assert before.seconds()["cpu_seconds"] >= 0.55


class Gpu:
    """A GPU whose own clock is at ``now`` milliseconds when its stream reaches an event."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited_for: list[float] = []

    def current_stream(self, device: torch.device) -> str:
        return f"stream of {device}"

    def event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def record(self, stream: str) -> None:
        assert stream == "stream of cuda:1"
        self.at = self.gpu.now

    def synchronize(self) -> None:
        self.gpu.waited_for.append(self.at)

    def elapsed_time(self, other: Event) -> float:
        assert self.gpu.waited_for[-1] == other.at, "CUDA has no time of an event to come"
        return other.at - self.at


def test_a_gpu_counts_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "current_stream", gpu.current_stream)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    clock = Clock(torch.device("cuda:1"))
    gpu.now = 2600.0
    counted = clock.seconds()
    assert set(counted) == {"seconds", "device_seconds"}
    assert counted["device_seconds"] == 2.5
    assert counted["seconds"] < 1
    assert gpu.waited_for == [2600.0], "one wait, at the end"
