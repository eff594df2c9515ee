"""Describe the machine, the packages and the code that make a record."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmark.catalogue.registry import ROOT
from benchmark.running.hardware import cpuinfo
from benchmark.running.scheduler.outcome import Machine


def environment(machine: Machine) -> dict[str, Any]:
    """Versions, device, threads and code state. Recorded, never keyed."""
    packages = {
        name: version(name) for name in ("torch", "torchvision", "numpy", "pillow", "scikit-learn")
    }
    device = torch.device(machine.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    where = {
        "device": name,
        "device_type": device.type,
        "cpu": _cpu_kind(),
        "threads": torch.get_num_threads(),
    }
    return {"python": platform.python_version(), **packages, **where, "git": _git()}


def _cpu_name() -> str:
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpu_kind() -> str:
    """What decides which vector code runs.

    The name does not: virtual machines give processors of several generations one name.
    """
    parts = [
        f"{name} {cpuinfo()[name]}"
        for name in ("cpu family", "model", "stepping")
        if name in cpuinfo()
    ]
    return ", ".join([platform.machine(), *parts, torch.backends.cpu.get_cpu_capability()])


@cache
def _git() -> str:
    """The commit of the checkout, with ``+changes`` if files differ from it.

    Empty outside a checkout.
    """
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if dirty.strip() else "")


def _reset_peak_memory() -> None:
    try:
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="ascii"
        )  # Linux: start a new high-water mark
    except OSError:
        pass  # elsewhere the mark is the process's own, since its start


def peak_memory_mb() -> float:
    """The highest resident memory of this process since the stage began (where the system can tell,
    else since its start).
    """
    try:
        for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
