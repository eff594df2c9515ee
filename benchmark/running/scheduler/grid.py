"""Keep the accuracies of a run's cells, and lay them out as tables of defenses and attacks.

The text is plain ASCII, apart from names, so that it shows on every terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from benchmark.planning.jobs import TrainJob
from benchmark.planning.stage import Stage

WAITING, RUNNING, FAILED, UNREADABLE = ".", "...", "failed", "?"
GAP = "  "  # between two columns
TITLE_WIDTH = 14  # of an attack's name on a terminal; a longer one goes on in the next line
LABEL_WIDTH = 24  # of a defense's name on a terminal; a longer one is cut


@dataclass
class Cell:
    """The seeds of one defense against one attack.

    Attributes:
        keys: of the seeds.
        read: the number of seeds whose accuracies are known, and ``total`` the sum of these.
        unreadable: the number of finished seeds whose records cannot be read.
        failed: the number of seeds without a result, after a failure of theirs or of their inputs.
    """

    keys: list[str] = field(default_factory=list)
    read: int = 0
    total: float = 0.0
    unreadable: int = 0
    failed: int = 0

    def text(self, running: Set[str]) -> str:
        """The mean accuracy so far in %, as ``74.1 (2/3)`` unless all seeds have one."""
        if self.read:
            mean = f"{100 * self.total / self.read:.1f}"
            return mean if self.read == len(self.keys) else f"{mean} ({self.read}/{len(self.keys)})"
        if self.unreadable:
            return UNREADABLE
        if self.failed == len(self.keys):
            return FAILED
        return WAITING if running.isdisjoint(self.keys) else RUNNING


@dataclass
class Table:
    """The cells of one data set, victim, protocol and poison ratio.

    Attributes:
        cells: (defense, attack) -> cell; a pair that the plan lacks is absent.
        defenses, attacks: name -> the number of results in the grid when this row or column got
            its last one, 0 for none; in the order of the plan.
    """

    title: str
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    defenses: dict[str, int] = field(default_factory=dict)
    attacks: dict[str, int] = field(default_factory=dict)

    def column(self, attack: str, running: Set[str]) -> list[str]:
        """The texts of one attack, one for each defense; empty where there is no cell."""
        cells = [self.cells.get((defense, attack)) for defense in self.defenses]
        return ["" if cell is None else cell.text(running) for cell in cells]


class Grid:
    """The cells of a run: the driver books their results, and displays show the tables.

    Attributes:
        total: the number of cells, each seed counted.
        filled: the number of cells that have a result or failed.
        found: the number of cells that have a result.
    """

    def __init__(self, stages: Iterable[Stage] = ()) -> None:
        self.filled = self.found = 0
        self._places: dict[str, tuple[Table, str, str]] = {}  # key -> table, defense, attack
        tables: dict[tuple[str, str, str, float], Table] = {}
        for stage in stages:
            job = stage.job
            if not isinstance(job, TrainJob):
                continue
            where = str(job.data.spec), job.victim.name, job.protocol.name, job.ratio
            table = tables.setdefault(where, Table(", ".join([*where[:3], f"ratio {job.ratio:g}"])))
            defense, attack = str(job.defense.spec), job.attack
            table.cells.setdefault((defense, attack), Cell()).keys.append(stage.key)
            table.defenses[defense] = table.attacks[attack] = 0
            self._places[stage.key] = table, defense, attack
        self.total = len(self._places)
        self._tables = list(tables.values())
        self._changed = next(iter(self._tables), Table(""))  # the table of the last result

    def finish(self, key: str, accuracy: float | None) -> None:
        """Book the result of a cell; other keys change nothing.

        Args:
            key: of the cell.
            accuracy: in [0, 1]; None if the record cannot be read.
        """
        if (cell := self._book(key)) is not None:
            self.found += 1
            if accuracy is None:
                cell.unreadable += 1
            else:
                cell.read, cell.total = cell.read + 1, cell.total + accuracy

    def fail(self, key: str) -> None:
        """Book that a cell has no result; other keys change nothing."""
        if (cell := self._book(key)) is not None:
            cell.failed += 1

    def _book(self, key: str) -> Cell | None:
        if key not in self._places:
            return None
        table, defense, attack = self._places[key]
        self._changed = table
        self.filled += 1
        table.defenses[defense] = table.attacks[attack] = self.filled
        return table.cells[defense, attack]

    def whole(self) -> list[str]:
        """The lines of all tables, without the rows and the tables that have no result yet."""
        lines = [self._caption()]
        for table in self._tables:
            rows = [name for name, last in table.defenses.items() if last]
            if rows:
                lines += [f"{GAP}{table.title}"] if len(self._tables) > 1 else []
                lines += [GAP + line for line in _lines(table, rows, [*table.attacks])]
        return lines

    def fitting(self, width: int, height: int, running: Set[str]) -> list[str]:
        """The lines of the table that changed last, or of as much of it as there is room for.

        Where there is no room for all, the defenses and attacks with the last results stay.

        Args:
            width, height: the room, in characters and lines.
            running: keys of the stages that run now.

        Returns:
            At most ``height`` lines, none of them longer than ``width``; none if not even one cell
            has room.
        """
        table = self._changed
        room = width - max((len(_cut(name)) for name in table.defenses), default=width)
        attacks = []
        for attack in sorted(table.attacks, key=table.attacks.__getitem__, reverse=True):
            room -= len(GAP) + max(map(len, [*_folded(attack), *table.column(attack, running)]))
            if room < 0:
                break
            attacks.append(attack)
        head = max((len(_folded(attack)) for attack in attacks), default=height)
        latest = sorted(table.defenses, key=table.defenses.__getitem__, reverse=True)
        defenses = latest[: max(height - 1 - head, 0)]
        if not attacks or not defenses:
            return []
        rows = [name for name in table.defenses if name in defenses]
        columns = [name for name in table.attacks if name in attacks]
        caption = self._caption() + (f"; {table.title}" if len(self._tables) > 1 else "")
        if len(rows) < len(table.defenses) or len(columns) < len(table.attacks):
            caption += (
                f"; the last {len(rows)} of {len(table.defenses)} defenses, "
                f"{len(columns)} of {len(table.attacks)} attacks"
            )
        return [caption[:width], *_lines(table, rows, columns, running, narrow=True)]

    def _caption(self) -> str:
        return f"accuracy in %, {self.found} of {self.total} cells"


def _lines(
    table: Table,
    defenses: Sequence[str],
    attacks: Sequence[str],
    running: Set[str] = frozenset(),
    narrow: bool = False,
) -> list[str]:
    """The lines of a table; ``narrow`` folds the names of attacks and cuts those of defenses."""
    titles = [_folded(attack) if narrow else [attack] for attack in attacks]
    depth = max(map(len, titles))
    shown = [row for row, name in enumerate(table.defenses) if name in defenses]
    columns = [[""] * depth + [_cut(name) if narrow else name for name in defenses]]
    for attack, title in zip(attacks, titles, strict=True):
        texts = table.column(attack, running)
        columns.append([""] * (depth - len(title)) + title + [texts[row] for row in shown])
    widths = [max(map(len, column)) for column in columns]
    widths[0] *= -1  # names to the left, numbers to the right
    return [
        GAP.join(
            text.ljust(-size) if size < 0 else text.rjust(size)
            for text, size in zip(row, widths, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _folded(name: str) -> list[str]:
    return [name[at : at + TITLE_WIDTH] for at in range(0, len(name), TITLE_WIDTH)]


def _cut(name: str) -> str:
    return name if len(name) <= LABEL_WIDTH else name[: LABEL_WIDTH - 3] + "..."
