"""From the long table to files: leaderboard.md, .csv, .html, cells.csv, and the plots as PNG and PDF.

Importing this package and asking ``is_current`` load neither pandas nor matplotlib, so that a run in which everything was
cached stays quick.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import __version__
from benchmark.results import record_digest
from benchmark.spec import digest

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.record import Record
    from benchmark.report.strips import Key

STATE = "report.json"


@dataclass(frozen=True)
class Report:
    """What ``write_report`` wrote: the folder and, beside ``report.json``, every file in it. ``rewritten`` is False if all were current."""

    folder: Path
    files: tuple[Path, ...]
    rewritten: bool = True

    @property
    def html(self) -> Path:
        return self.folder / "leaderboard.html"


def write_report(
    table: pd.DataFrame,
    folder: Path,
    title: str,
    *,
    context: Mapping[str, str] | None = None,
    pictures: Mapping[Key, bytes] | None = None,
) -> Report:
    """Writes the report of a long table (``results.to_table``) into ``folder``; does nothing if it stands there already.

    The same table, title and context give the same bytes. Several groups (data set, victim, protocol, poison ratio) become
    sections of one page; the plots of the second and later ones are ``heatmap-2.png``, ``curves-2.png`` and so on.

    Args:
        table: what ``to_table`` returns.
        folder: made if missing. Files of an earlier report that this one does not have are removed.
        title: headline of the page.
        context: further facts to show, for example ``{"command": "run_benchmark.py run quick"}``.
        pictures: ``strips.Strips`` of the same table. Which there are decides with the rest whether the report is current; what they show
            follows from the records, which hold the sha256 of the images, so that none is drawn for a report that stands.

    Raises:
        ValueError: if the table is empty.
        OSError: if the folder cannot be written.
    """
    from benchmark.report.view import sections

    context, pictures = dict(context or {}), pictures or {}
    groups = sections(table)
    wanted = _digest(table["record"], title, context, pictures)
    if is_current(wanted, folder):
        return Report(folder, tuple(folder / name for name in sorted(_state(folder)[1])), rewritten=False)

    from benchmark.report import page, plots, text

    files: dict[str, bytes] = {}
    shown: list[dict[str, bytes]] = []
    for index, section in enumerate(groups):
        drawn = {"heatmap": plots.heatmap(section), "curves": plots.curves(section)}
        for name, formats in drawn.items():
            for ending, content in formats.items():
                files[f"{name}{f'-{index + 1}' if index else ''}.{ending}"] = content
        shown.append({name: formats["png"] for name, formats in drawn.items() if formats})
    files["leaderboard.md"] = text.markdown(table, groups, title, context).encode()
    files["leaderboard.csv"] = text.leaderboard_csv(table).encode()
    files["cells.csv"] = text.cells_csv(table).encode()
    files["leaderboard.html"] = page.page(table, groups, title, context, shown, pictures).encode()
    _publish(folder, files, wanted)
    return Report(folder, tuple(folder / name for name in sorted(files)))


def report_digest(records: Iterable[Record], title: str, context: Mapping[str, str] | None = None, pictures: Iterable[Key] = ()) -> str:
    """Names the report that ``write_report`` would make of these records, with this code. Order and repetition do not matter."""
    return _digest((record_digest(record) for record in records), title, dict(context or {}), pictures)


def is_current(digest: str, folder: Path) -> bool:
    """Whether ``folder`` holds the report that ``digest`` (of ``report_digest``) names, whole."""
    found, files = _state(folder)
    if found != digest:
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files.items())


def _digest(records: Iterable[str], title: str, context: Mapping[str, str], pictures: Iterable[Key]) -> str:
    return digest([sorted(set(records)), title, dict(context), sorted(pictures), __version__, _sources()])


@cache
def _sources() -> str:
    """sha256 of the code that makes the report: this package and the modules of its numbers and commands."""
    here = Path(__file__).parent
    core = [here.parent / name for name in ("results.py", "reproduce.py", "protocol.py")]
    sources = [*sorted(path for ending in ("py", "j2", "css", "js") for path in here.glob(f"*.{ending}")), *core]
    return sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _state(folder: Path) -> tuple[str, dict[str, int]]:
    """What ``report.json`` says: the digest, and the files with their sizes; empty ones if it is missing or not a report's."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return str(state["digest"]), {str(name): int(size) for name, size in state["files"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}


def _publish(folder: Path, files: Mapping[str, bytes], digest: str) -> None:
    """Writes each file whole, and ``report.json`` last: while it is missing, the report does not count as current."""
    folder.mkdir(parents=True, exist_ok=True)
    _, old = _state(folder)
    (folder / STATE).unlink(missing_ok=True)
    for name in set(old) - set(files):
        if Path(name).name == name:  # the file could have been edited to name others
            (folder / name).unlink(missing_ok=True)
    sizes = {name: len(content) for name, content in files.items()}
    state = json.dumps({"digest": digest, "files": sizes}, indent=1, sort_keys=True).encode() + b"\n"
    for name, content in {**files, STATE: state}.items():
        part = folder / f".{name}.part"
        part.write_bytes(content)
        os.replace(part, folder / name)
