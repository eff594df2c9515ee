"""The report as one self-contained HTML page."""

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

    Fields: the id under which drawings refer to it, its size in pixels, its content as an address.
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
    """The HTML text.

    Args:
        summary: of the long table; ``sections`` are its own.
        plots: for each section, PNG bytes by name (``curves``, ``heatmap``), which go into the
            page.
        pictures: as ``pictures.Pictures``, or empty; each goes into the page once.
        counterparts: published numbers, which stand in the cells that they are counterparts of.
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
            section.where: [one for one in counterparts if where_of(one) == section.where]
            for section in sections
        },
        curve=svg.curve,
        scatters=[
            [found for score in svg.SCORES if (found := svg.scatter(section, score))]
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
    """Every number of every source, also those that a source prints twice.

    The sources of each group have the letters a, b, c.
    """
    found: dict[Place, list[PublishedNumber]] = {}
    letters: dict[Where, int] = {}
    for one in counterparts:
        mark = chr(ord("a") + letters.setdefault(where_of(one), 0) % 26)
        letters[where_of(one)] += 1
        for pair in one.pairs:
            shown = PublishedNumber(
                mark,
                titled(one, counterparts),
                printed(pair),
                difference(pair).replace("-", "−"),
                ", ".join(pair.differs),
            )
            found.setdefault((where_of(one), pair.attack, pair.defense), []).append(shown)
    return found


def _choices(sections: Sequence[Section]) -> dict[str, list[str]]:
    """What the page's filters offer: those with something to choose from."""
    found = {
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
    return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def _picture(name: str, png: bytes) -> Picture:
    width, height = (
        int.from_bytes(png[at : at + 4], "big") for at in (16, 20)
    )  # where a PNG has them
    return Picture(name, width, height, _address(png))


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _sortable(value: float | int | None) -> str:
    """A number as the page's script reads it; empty, which sorts last, where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.9g}"


def _breakable(spec: str) -> Markup:
    """A label that may break after ``[`` and ``,``, so that a long spec does not crowd out its
    neighbours.
    """
    return Markup("<wbr>").join(re.split(r"(?<=[\[,])", spec))
