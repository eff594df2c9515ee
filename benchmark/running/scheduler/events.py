"""Log the events of a run: one JSON object in each line, written event by event."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType

from benchmark.storage.atomic import explained


class EventLog:
    """Append events to a file, or drop them if there is no path.

    Every line holds ``time`` (UTC, ISO 8601) and ``event``: ``start``, ``stage_cached``,
    ``stage_started``, ``stage_done``, ``stage_failed``, ``stage_retried``, ``blocked``, ``log``,
    ``stopped``, ``interrupted`` or ``end``. Events of a stage also hold ``key`` and ``label``, and
    where they apply ``slot``, ``seconds``, ``error`` and ``test_acc``, the accuracy of a cell that
    is done, in [0, 1].
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: FileIO | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer an event is one write, and no event waits in memory.
            self._file = FileIO(path, "a+")
            end = self._file.tell()
            if end and os.pread(self._file.fileno(), 1, end - 1) != b"\n":
                self._file.write(b"\n")  # an earlier run was killed in the middle of a line
        except OSError as error:
            raise explained(error, path.parent) from error

    def write(self, event: str, **values: object) -> None:
        """Append one event.

        Raises:
            OSError: if it cannot be written; later events are then dropped.
        """
        if self._file is None or self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": now, "event": event, **values}).encode() + b"\n")
        except OSError as error:
            self._file.close()
            self._file = None
            raise explained(error, self.path.parent) from error

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
