"""Write the report of a long table into a folder: page, tables, figures, texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import __version__
from benchmark.analysis.table import CELL
from benchmark.keys import digest
from benchmark.storage.atomic import publish

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.counterparts import Counterparts
    from benchmark.analysis.leaderboard import Summary
    from benchmark.report.pictures import PictureKey
    from benchmark.report.sections import Section

STATE = "report.json"


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        folder: where it is.
        files: every file of the report beside ``report.json``.
        left_out: which figures were not drawn for lack of data, and why.
        overview: how to get the other cells, if not every cell was drawn; else empty.
    """

    folder: Path
    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    overview: str = ""

    @property
    def html(self) -> Path:
        return self.folder / "leaderboard.html"


def write_report(
    summary: Summary,
    folder: Path,
    title: str,
    *,
    context: Mapping[str, str] | None = None,
    pictures: Mapping[PictureKey, bytes] | None = None,
    norms: Mapping[str, str] | None = None,
    counterparts: Sequence[Counterparts] = (),
    sources: Sequence[str] = (),
    every_figure: bool = False,
) -> Report:
    """Write the report of a long table into ``folder``, unless this report is there already.

    The same table, title and context give the same bytes. Several groups (data set, victim,
    protocol, poison ratio, preset) become sections of one page; the plots of the second and later
    ones are ``heatmap-2.png``, ``curves-2.png`` and so on. Tables are ``table-NAME`` as ``.tex``,
    ``.md`` and ``.csv``. ``tables.paper_tables`` and ``draw.figures`` list the names.

    Args:
        summary: summary of the long table.
        folder: made if missing. Files of an earlier report that this one does not have are removed.
        title: headline of the page.
        context: further facts to show, for example ``{"command": "run_benchmark.py run quick"}``.
        pictures: ``pictures.Pictures`` of the same records, drawn only if the report is written.
            Only their names count for whether the report is current: the records hold the sha256 of
            the images, which decides what a picture shows.
        norms: norms of the attacks by registered name, by which tables group their rows.
        counterparts: published numbers, which page and tables show beside ours.
        sources: the arguments that selected the published numbers; ``remembered`` returns them.
        every_figure: whether to draw every cell of a large table. Without it, a table with more
            than ``draw.FULL`` cells gets an overview.

    Raises:
        ValueError: if the table is empty.
        OSError: if the folder cannot be written.
    """
    from benchmark.report.sections import sections

    context, pictures, norms = dict(context or {}), pictures or {}, dict(norms or {})
    groups = sections(summary)
    wanted = _digest(
        summary.table, title, context, pictures, norms, counterparts, sources, every_figure
    )
    if is_current(wanted, folder):
        state = _state(folder)
        current = tuple(folder / name for name in sorted(state.files))
        return Report(folder, current, state.left_out, state.overview)

    from benchmark.report import markdown_report as text
    from benchmark.report import page, tables, typeset
    from benchmark.report.published import published_tables

    drawn, left_out, overview = _figures(summary, groups, every_figure)
    if overview:
        context |= {"figures": overview}
    files = {
        f"{name}.{ending}": content
        for name, formats in drawn.items()
        for ending, content in formats.items()
    }
    report = text.report_markdown(summary, groups, title, context, counterparts)
    files["leaderboard.md"] = report.encode()
    files["leaderboard.csv"] = text.leaderboard_csv(summary).encode()
    files["cells.csv"] = text.cells_csv(summary, counterparts).encode()
    shown = [_of_section(drawn, index) for index in range(len(groups))]
    html = page.page(summary, groups, title, context, shown, pictures, counterparts)
    files["leaderboard.html"] = html.encode()
    for table in [
        *tables.paper_tables(summary, norms, counterparts),
        *published_tables(counterparts),
    ]:
        for ending, form in typeset.FORMS.items():
            files[f"table-{table.name}.{ending}"] = form(table).encode()
    state = _State(wanted, {}, tuple(left_out), tuple(sources), overview, every_figure)
    _publish(folder, files, state)
    return Report(folder, tuple(folder / name for name in sorted(files)), tuple(left_out), overview)


Drawn = dict[str, dict[str, bytes]]  # name of a figure -> its content in each format


def _figures(
    summary: Summary, groups: Sequence[Section], every_figure: bool
) -> tuple[Drawn, list[str], str]:
    """Draw the figures.

    Returns:
        The figures, a sentence for each figure that lacks data, and the text of
        ``Report.overview``.
    """
    from benchmark.report.figures import curves, draw, heatmap

    cells = sum(len(section.rows) * len(section.columns) for section in groups)
    if cells > draw.FULL and not every_figure:
        drawn, overview = draw.overview(cells, groups)
        return drawn, [], overview
    drawn, left_out = draw.figures(summary, groups)
    for index, section in enumerate(groups):
        drawn[_numbered("heatmap", index)] = heatmap.heatmap(section)
        if lines := curves.curves(section):
            drawn[_numbered("curves", index)] = lines
    return drawn, left_out, ""


def _of_section(drawn: Drawn, index: int) -> dict[str, bytes]:
    """The PNGs that the page shows of one section."""
    names = [name for name in ("heatmap", "curves") if _numbered(name, index) in drawn]
    return {name: drawn[_numbered(name, index)]["png"] for name in names}


def is_current(digest: str, folder: Path) -> bool:
    """Whether ``folder`` holds the whole report with this ``digest`` (see ``report.json``)."""
    state = _state(folder)
    if state.digest != digest:
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in state.files.items()
    )


def remembered(folder: Path) -> tuple[tuple[str, ...], bool]:
    """The ``sources`` and ``every_figure`` with which the last report in ``folder`` was written."""
    state = _state(folder)
    return state.sources, state.every_figure


def _digest(
    table: pd.DataFrame,
    title: str,
    context: Mapping[str, str],
    pictures: Iterable[PictureKey],
    norms: Mapping[str, str],
    counterparts: Sequence[Counterparts],
    sources: Sequence[str],
    every_figure: bool,
) -> str:
    # labels and presets are part of it, since they depend on all records of the table
    shown = sorted(set(zip(*(table[name].tolist() for name in (*CELL, "record")), strict=True)))
    options = [repr(counterparts), [*sources], every_figure]  # as text, since JSON has no NaN
    about = [title, dict(context), sorted(pictures), dict(norms), options]
    return digest([shown, *about, __version__, _sources()])


@cache
def _sources() -> str:
    """The sha256 of the code that makes a report: this package, ``analysis`` and ``catalogue``."""
    here = Path(__file__).parent
    folders = (here, here.parent / "analysis", here.parent / "catalogue")
    endings = (".py", ".j2", ".css", ".js")
    files = [file for folder in folders for file in folder.rglob("*.*") if file.suffix in endings]
    files.append(here.parent / "keys.py")
    return sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()


@dataclass(frozen=True)
class _State:
    """The content of ``report.json``; the defaults stand for a missing or foreign file."""

    digest: str = ""
    files: Mapping[str, int] = field(default_factory=dict)  # name -> size in bytes
    left_out: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # of published numbers
    overview: str = ""
    every_figure: bool = False


def _state(folder: Path) -> _State:
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        files = {str(name): int(size) for name, size in state["files"].items()}
        left_out, sources = (
            tuple(map(str, state.get(name, ()))) for name in ("left_out", "published")
        )
        return _State(
            str(state["digest"]),
            files,
            left_out,
            sources,
            str(state.get("overview", "")),
            state.get("every_figure") is True,
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return _State()


def _publish(folder: Path, files: Mapping[str, bytes], state: _State) -> None:
    """Write each file whole, and ``report.json`` last.

    Until then ``report.json`` has no digest, so that the report does not count as current.
    """
    old = _state(folder).files
    unfinished = replace(state, digest="", files={**old, **dict.fromkeys(files, -1)})
    publish(folder / STATE, _state_text(unfinished), durable=False)
    for name in set(old) - set(files):
        if Path(name).name == name:  # the file could have been edited to name others
            (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        publish(folder / name, content, durable=False)
    finished = replace(state, files={name: len(content) for name, content in files.items()})
    publish(folder / STATE, _state_text(finished), durable=False)


def _state_text(state: _State) -> bytes:
    values = asdict(state)
    values["published"] = values.pop("sources")
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _numbered(name: str, index: int) -> str:
    return f"{name}-{index + 1}" if index else name
