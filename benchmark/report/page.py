"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmark.report.view import HOW_TO_READ, Section, environment, facts

if TYPE_CHECKING:
    import pandas as pd


def page(
    table: pd.DataFrame, sections: Sequence[Section], title: str, context: Mapping[str, str], plots: Sequence[Mapping[str, bytes]]
) -> str:
    """The HTML text. ``plots`` holds, for each section, PNG bytes by name (``curves``, ``heatmap``), which go into the page."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters["sortable"] = _sortable
    jinja.filters["breakable"] = _breakable
    return jinja.get_template("leaderboard.html.j2").render(
        title=title,
        sections=sections,
        plots=[{name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pair.items()} for pair in plots],
        how_to_read=HOW_TO_READ,
        context=context,
        facts=facts(table),
        environment=environment(table),
    )


def _sortable(value: float | int | None) -> str:
    """A number as the page's script reads it; empty, which sorts last, where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def _breakable(spec: str) -> Markup:
    """A label that may break after ``[`` and ``,``, so that a long spec does not crowd out its neighbours."""
    return Markup("<wbr>").join(re.split(r"(?<=[\[,])", spec))
