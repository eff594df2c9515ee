"""Write GitHub-flavoured Markdown: all tables of the project, and escaping."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[bool]) -> list[str]:
    """The lines of a table with padded columns.

    Args:
        head: title of each column, as plain text.
        rows: the cells of each line, as Markdown (see ``escaped``).
        texts: for each column, whether it holds texts, which align left; numbers align right.
    """
    cells = [[escaped(title) for title in head], *(list(row) for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]
    rule = [
        ":" + "-" * (width - 1) if is_text else "-" * (width - 1) + ":"
        for width, is_text in zip(widths, texts, strict=True)
    ]
    padded = [
        [
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(row, widths, texts, strict=True)
        ]
        for row in cells
    ]
    return [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]


def escaped(text: str) -> str:
    """The text as one line, with its Markdown, links and HTML made harmless."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*`#]|\](?=[(\[]))", r"\\\1", text)
