"""Show the progress of a run: live bars and table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from benchmark.catalogue.spec import did_you_mean
from benchmark.running.scheduler.status import Status, duration

if TYPE_CHECKING:
    from rich.console import RenderableType

HEARTBEAT_SECONDS = 30.0
DISPLAYS = ("auto", "live", "plain", "none")


class Display:
    """Show nothing; the base of the other displays."""

    def open(self, status: Status, text: str) -> None:
        """Begin, with the first line."""

    def say(self, text: str) -> None:
        """Show one lasting line, such as that of a finished stage."""

    def started(self, text: str) -> None:
        """Show that a stage has started."""

    def filled(self) -> None:
        """Show that cells of the status's grid got a result or failed."""

    def tick(self) -> None:
        """Update; the driver calls this a few times a second and for each progress message."""

    def close(self, text: str) -> None:
        """End, with the last line."""


class Plain(Display):
    """Print a line for each event, and the counts after half a minute without a line.

    The table is printed each time another quarter of the cells is filled. Stored results count, so
    that a continued run begins with its table. The last quarter is left to the report.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream, clock
        self._last = clock()
        self._status: Status | None = None
        self._quarters = 0

    def open(self, status: Status, text: str) -> None:
        self._status = status
        self.say(text)
        self.filled()

    def say(self, text: str) -> None:
        self._last = self._clock()
        print(text, file=self._stream or sys.stderr, flush=True)

    def started(self, text: str) -> None:
        self.say(text)

    def filled(self) -> None:
        if self._status is None or not self._status.grid.total:
            return
        grid = self._status.grid
        quarters = 4 * grid.filled // grid.total
        if self._quarters < quarters < 4:
            self._quarters = quarters
            self.say("\n".join(grid.whole()))

    def tick(self) -> None:
        if self._status is not None and self._clock() - self._last >= HEARTBEAT_SECONDS:
            running = self._status.running.values()
            notes = [f"{item.stage.label} {item.share:.0%}" for item in running]
            self.say(self._status.line() + (f" ({', '.join(notes)})" if notes else ""))

    def close(self, text: str) -> None:
        self.say(text)


class Live(Display):
    """Redraw the table so far, a bar for each running stage, and the counts.

    Finished stages scroll away above. The table takes the lines of the terminal that the bars and
    the counts leave.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._last = 0.0
        self._status: Status | None = None  # set before rich's objects, which may render at once
        self._console: Console = console or Console(stderr=True)
        # Only tick redraws: a thread of rich would read the status while the driver changes it.
        self._live = RichLive(
            console=self._console, get_renderable=self._render, auto_refresh=False, transient=True
        )

    def open(self, status: Status, text: str) -> None:
        self._status = status
        self._console.print(text, markup=False)
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def filled(self) -> None:
        self._live.refresh()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last >= 0.2:
            self._last = now
            self._live.refresh()

    def close(self, text: str) -> None:
        self._live.stop()
        self.say(text)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self._status is None:
            return Text("")
        size, running = self._console.size, self._status.running
        keys = {item.stage.key for item in running.values()}
        room = size.height - len(running) - 2  # the counts, and a line for the cursor
        lines = self._status.grid.fitting(size.width, room, keys)
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(width=20)
        table.add_column(justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for slot, item in sorted(running.items()):
            seconds = self._status.clock() - item.since
            bar = ProgressBar(total=1.0, completed=item.share, width=20, pulse=item.share == 0)
            table.add_row(
                Text(f"{item.device} #{slot}  {item.stage.label}"),
                bar,
                Text(duration(seconds)),
                Text(item.note),
            )
        cells = [Text(line, no_wrap=True, overflow="crop") for line in lines]
        return Group(*cells, table, Text(self._status.line(), style="bold"))


def open_display(name: str | Display) -> Display:
    """Return the display of that name; ``auto`` is ``live`` on a terminal and ``plain`` elsewhere.

    Raises:
        ValueError: if there is no display of that name.
    """
    if isinstance(name, Display):
        return name
    if name == "auto":
        name = "live" if sys.stderr.isatty() else "plain"
    if name not in DISPLAYS:
        raise ValueError(f'unknown display "{name}"{did_you_mean(name, list(DISPLAYS))}')
    kinds: dict[str, type[Display]] = {"live": Live, "plain": Plain, "none": Display}
    return kinds[name]()
