"""Pass a stage and its machine to a worker, as JSON on the pipe between the processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from benchmark.planning.stage import Stage
from benchmark.running.scheduler.outcome import Machine


@dataclass(frozen=True)
class Task:
    """A stage, and the machine with the device of its slot.

    ``from_json`` gives back equal values.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    stage: Stage
    machine: Machine

    def to_json(self) -> bytes:
        """Return the task as JSON."""
        return _adapter().dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: if a field is unknown, missing or of another type; the message names it.
        """
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Task]:
    return TypeAdapter(Task)
