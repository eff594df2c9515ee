"""Write the report as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmark.analysis.counterparts import Counterparts
from benchmark.analysis.leaderboard import Summary
from benchmark.report import svg
from benchmark.report.pictures import GAP, PictureKey
from benchmark.report.published import agreement
from benchmark.report.published_cells import (
    Place,
    Where,
    difference,
    printed,
    remarks,
    titled,
    where_of,
)
from benchmark.report.runs import cell_runs
from benchmark.report.sections import HOW_TO_READ, Section, environment, facts


@dataclass(frozen=True)
class Picture:
    """A PNG in the page.

    ``id`` is the name by which drawings refer to it, ``width`` and ``height`` are in pixels, and
    ``address`` is a ``data:`` URL with the content.
    """

    id: str
    width: int
    height: int
    address: str


def page(
    summary: Summary,
    sections: Sequence[Section],
    title: str,
    context: Mapping[str, str],
    plots: Sequence[Mapping[str, bytes]],
    pictures: Mapping[PictureKey, bytes],
    counterparts: Sequence[Counterparts] = (),
) -> str:
    """The HTML text of the page.

    Args:
        summary: summary of the long table.
        sections: what ``sections.sections`` returns for ``summary``.
        title: heading of the page.
        context: further facts to show.
        plots: for each section, PNG bytes by name (``curves``, ``heatmap``).
        pictures: a ``pictures.Pictures``, or empty; the page holds each picture once.
        counterparts: published numbers, which the page shows in the corresponding cells.
    """
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["sortable"] = _sortable
    jinja.filters["breakable"] = _breakable
    jinja.filters["agreement"] = agreement
    jinja.filters["remarks"] = remarks
    return jinja.get_template("leaderboard.html.j2").render(
        title=title,
        sections=sections,
        choices=_choices(sections),
        runs=cell_runs(summary.runs),
        published=_published(counterparts),
        counterparts={
            section.where: [item for item in counterparts if where_of(item) == section.where]
            for section in sections
        },
        curve=svg.curve,
        scatters=[
            [
                drawing
                for score in svg.SCORES
                if not section.no_claim and (drawing := svg.scatter(section, score))
            ]
            for section in sections
        ],
        gap=GAP,
        pictures={
            key: _picture(f"picture-{index}", png)
            for index, (key, png) in enumerate(pictures.items())
        },
        plots=[{name: _address(png) for name, png in pair.items()} for pair in plots],
        how_to_read=HOW_TO_READ,
        context=context,
        facts=facts(summary.table),
        environment=environment(summary.table),
    )


@dataclass(frozen=True)
class PublishedNumber:
    """A published number in a cell. ``mark`` is the letter of its source below the table."""

    mark: str
    source: str
    printed: str
    difference: str
    differs: str


def _published(counterparts: Sequence[Counterparts]) -> dict[Place, list[PublishedNumber]]:
    """Every number of every source, including those that a source prints twice.

    The sources of each group have the letters a, b, c.
    """
    by_place: dict[Place, list[PublishedNumber]] = {}
    letters: dict[Where, int] = {}
    for group in counterparts:
        where = where_of(group)
        mark = chr(ord("a") + letters.setdefault(where, 0) % 26)
        letters[where] += 1
        for pair in group.pairs:
            shown = PublishedNumber(
                mark,
                titled(group, counterparts),
                printed(pair),
                difference(pair).replace("-", "−"),
                ", ".join(pair.differs),
            )
            by_place.setdefault((where, pair.attack, pair.defense), []).append(shown)
    return by_place


def _choices(sections: Sequence[Section]) -> dict[str, list[str]]:
    """The values of each filter of the page; a filter with a single value is left out."""
    offered = {
        "data set": {section.dataset for section in sections},
        "victim": {section.victim for section in sections},
        "attack": {
            column.attack
            for section in sections
            for column in section.columns
            if not column.is_clean
        },
        "needs": {row.needs for section in sections for row in section.rows},
    }
    return {name: sorted(values) for name, values in offered.items() if len(values) > 1}


def _picture(name: str, png: bytes) -> Picture:
    # a PNG holds its width at byte 16 and its height at byte 20
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    return Picture(name, width, height, _address(png))


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _sortable(value: float | int | None) -> str:
    """A number as the page's script reads it; without a number it is empty, which sorts last."""
    return "" if value is None or math.isnan(value) else f"{value:.9g}"


def _breakable(spec: str) -> Markup:
    """A label that may break after ``[`` and ``,``, so that a long spec leaves room for others."""
    return Markup("<wbr>").join(re.split(r"(?<=[\[,])", spec))
