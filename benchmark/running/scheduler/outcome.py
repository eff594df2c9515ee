"""Describe where stages run (``Machine``) and how a run went (``Outcome``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The terminal shows lines of a stage's log that begin with this, each text once in a run.
WARNING = "warning: "


@dataclass(frozen=True)
class Machine:
    """The surroundings of a stage, in plain JSON types.

    Attributes:
        device: ``cpu``, ``cuda:0``, ...; the scheduler sets it to the device of the slot.
        data_root: folder of data sets; empty for the user's cache.
        plugins: files given with ``--plugin``.
        workers: the number of threads that a method may use for work outside torch.
    """

    device: str = "cpu"
    data_root: str = ""
    plugins: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Failure:
    """A failed stage.

    Attributes:
        key: of the stage.
        label: of the stage.
        error: the reason in one line.
        where: the line of the method's file at which it crashed, such as
            ``mydefense.py:12: return x / 0``; may be empty.
        file: the file in the store that holds the full traceback; None if there is no traceback.
    """

    key: str
    label: str
    error: str
    where: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The counts and failures of a run.

    Attributes:
        done: the number of stages that ran to their end.
        cached: the number of stages whose results were there.
        failed: the number of stages that raised an error or whose worker died.
        blocked: the number of stages that could not run since one before them failed.
        missing: the number of needed stages that did not run, after an interruption, a full disk,
            or with policy ``collect``.
        interrupted: whether Ctrl-C or SIGTERM stopped the run.
        stopped: another reason why the run ended early, such as a full disk; empty without one.
        failures: one entry for each failed stage.
        warnings: the warnings of stages, each text once.
        seconds: wall time.
    """

    done: int = 0
    cached: int = 0
    failed: int = 0
    blocked: int = 0
    missing: int = 0
    interrupted: bool = False
    stopped: str = ""
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The exit code: 0, or 130 after an interruption, or 1 after a failure or early stop."""
        if self.interrupted:
            return 130
        return 1 if self.failed or self.blocked or self.stopped else 0

    @property
    def summary(self) -> str:
        """The counts in one line, and what to do next if something is missing."""
        parts = [f"{self.done} done", f"{self.cached} cached", f"{self.failed} failed"]
        if self.blocked:
            parts.append(f"{self.blocked} blocked")
        if self.missing:
            parts.append(f"{self.missing} not run")
        line = f"{', '.join(parts)} in {self.seconds:.1f} s"
        if self.interrupted:
            return (
                f"interrupted: {line}. What was finished is kept; "
                "run the same command again to continue"
            )
        if self.stopped:
            return f"stopped: {line}. {self.stopped}"
        return line


def default_slots(device: str = "cpu", slots_per_gpu: int = 1, workers: int = 0) -> tuple[str, ...]:
    """Return the device of each slot.

    Args:
        device: ``cpu`` (a slot for each core), ``cuda`` (``slots_per_gpu`` slots for each GPU),
            ``auto`` (GPUs if there are any), or one device such as ``cuda:1``.
        slots_per_gpu: the number of slots that share one GPU.
        workers: the number of slots, or on GPUs the highest number; 0 means as many as fit.

    Raises:
        ValueError: if a number is negative, or no GPU is there for ``cuda``.
    """
    if slots_per_gpu < 1 or workers < 0:
        raise ValueError(
            f"slots_per_gpu={slots_per_gpu} and workers={workers}: "
            "expected at least 1 and at least 0"
        )
    if device in ("auto", "cuda"):
        import torch

        gpus = torch.cuda.device_count()
        if gpus:
            # The GPUs take turns, so that few slots or stages spread over all of them.
            slots = tuple(f"cuda:{i}" for i in range(gpus)) * slots_per_gpu
            return slots[: workers or None]
        if device == "cuda":
            raise ValueError(
                'device "cuda" was asked for but torch sees no GPU; '
                "use --device cpu, or check the driver with nvidia-smi"
            )
        device = "cpu"
    if device == "cpu":
        # Unlike os.cpu_count, joblib's respects affinity masks and container limits.
        from joblib import cpu_count

        return ("cpu",) * (workers or int(cpu_count()))
    return ((device,) * slots_per_gpu)[: workers or None]
