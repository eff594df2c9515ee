"""Find what this machine has; torch is imported only if a GPU may be there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

# Flags of processors with bf16 arithmetic; on others bf16 is emulated and slow.
BF16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")


def choose_device(wanted: str) -> str:
    """Return the device to run on: ``wanted``, or for ``auto`` the best that is there.

    Raises:
        ValueError: if ``wanted`` is no device or there is no such GPU.
    """
    if wanted == "auto":
        return detect_device()
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", wanted)
    if match is None:
        raise ValueError(f'unknown device "{wanted}"; expected auto, cpu, cuda or cuda:0')
    if wanted != "cpu":
        import torch

        count = torch.cuda.device_count()
        if count <= int(match[1] or 0):
            raise ValueError(
                f'device "{wanted}" was asked for but torch sees {count} GPUs; '
                "use --device cpu, or check with nvidia-smi"
            )
    return wanted


def detect_device() -> str:
    """Return ``cuda`` if a usable NVIDIA GPU is there, else ``cpu``."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def native_precision(device: str) -> str:
    """Return the precision that ``auto`` means: ``bf16`` if the hardware has it, else ``fp32``."""
    if device.startswith("cuda"):
        import torch

        return "bf16" if torch.cuda.get_device_capability(torch.device(device))[0] >= 8 else "fp32"
    flags = cpuinfo().get("flags", "").split()
    return "bf16" if set(flags).intersection(BF16_CPU_FLAGS) else "fp32"


@cache
def cpuinfo() -> Mapping[str, str]:
    """Return Linux's description of the first processor: ``model name``, ``flags`` and so on.

    It is empty on other systems.
    """
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def default_data_root() -> Path:
    """Return the folder of data sets: ``$UEBENCH_DATA``, else the user's cache folder."""
    if "UEBENCH_DATA" in os.environ:
        return Path(os.environ["UEBENCH_DATA"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "uebench"
