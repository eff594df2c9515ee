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
from benchmark.running.bf16 import is_rounded
from benchmark.running.hardware import cpuinfo
from benchmark.running.scheduler.outcome import Machine


def environment(machine: Machine, precision: str) -> dict[str, Any]:
    """Describe packages, device, threads and code for a record; no key depends on this.

    Where bf16 is computed by rounding (``bf16.py``), ``bf16`` says so.
    """
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
    if is_rounded(precision, machine.device):
        where["bf16"] = "fp32, rounded"
    return {"python": platform.python_version(), **packages, **where, "git": _git()}


def _cpu_name() -> str:
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpu_kind() -> str:
    """Describe the processor by what decides which vector code runs.

    The name does not decide it: virtual machines give one name to processors of several
    generations.
    """
    info = cpuinfo()
    parts = [f"{name} {info[name]}" for name in ("cpu family", "model", "stepping") if name in info]
    return ", ".join([platform.machine(), *parts, torch.backends.cpu.get_cpu_capability()])


@cache
def _git() -> str:
    """Return the commit of the checkout, with ``+changes`` if files differ from it.

    It is empty outside a checkout.
    """
    try:
        commit = _ask_git("rev-parse", "HEAD")
        changes = _ask_git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")


def _ask_git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _reset_peak_memory() -> None:
    """Start a new mark of the highest memory on Linux; elsewhere the process keeps its old mark."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass


def peak_memory_mb() -> float:
    """Return the highest resident memory of this process since the stage began, in MB.

    Where the system cannot tell that, it is the highest since the process started.
    """
    try:
        for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
