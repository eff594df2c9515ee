"""One table of a paper as LaTeX, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from benchmark.report import markdown as md
from benchmark.report.markdown import escaped
from benchmark.report.numbers import ABSENT, percent

if TYPE_CHECKING:
    pass

Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Entry:
    """What stands in one place: the text that people read, and what the CSV holds of it (``""``
    where there is no value).
    """

    text: str
    values: tuple[str, ...]
    mark: Mark = ""

    def marked(self, mark: Mark) -> Entry:
        return replace(self, mark=mark)


@dataclass(frozen=True)
class Block:
    """Lines that belong together, under one title that spans them.

    A line is a label and an entry a column.
    """

    title: str
    lines: tuple[tuple[str, tuple[Entry, ...]], ...]


@dataclass(frozen=True)
class PaperTable:
    """A table and what is said of it.

    Attributes:
        name: of its files and of its LaTeX label; letters, digits and hyphens.
        labels: titles of the label columns: of blocks and lines, or of lines alone.
        columns: titles of the other columns.
        values: titles of the CSV's columns behind the labels, as many as the entries of a line have
            values.
        notes: sentences below the table.
        align: a letter a column, ``r``, ``l`` or ``c``; all to the right if it is empty.
    """

    name: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    align: str = ""

    @property
    def head(self) -> tuple[str, ...]:
        return self.labels + self.columns

    @property
    def alignment(self) -> str:
        return "l" * len(self.labels) + (self.align or "r" * len(self.columns))


def table_latex(table: PaperTable) -> str:
    """A ``table`` environment, best in bold and second underlined, for ``booktabs`` and
    ``multirow``. Names are escaped.
    """
    body: list[str] = []
    for block in table.blocks:
        if body:
            body.append(r"    \midrule")
        for index, (label, entries) in enumerate(block.lines):
            cells = [tex(label), *(_LATEX[entry.mark].format(tex(entry.text)) for entry in entries)]
            if len(table.labels) == 2:
                title = _NORMS.get(block.title) or tex(block.title)
                spanning = (
                    rf"\multirow{{{len(block.lines)}}}{{*}}{{{title}}}"
                    if title and len(block.lines) > 1
                    else title
                )
                cells.insert(0, spanning if index == 0 else "")
            body.append(f"    {' & '.join(cells)} \\\\")
    lines = [
        r"% \usepackage{booktabs,multirow}",
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{tex(table.caption)}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{{table.alignment}}}",
        r"    \toprule",
        f"    {' & '.join(map(tex, table.head))} \\\\",
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip{{\footnotesize {tex(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def table_markdown(table: PaperTable) -> str:
    """GitHub-flavoured Markdown: best in bold, second underlined.

    A block's title stands in its first line.
    """
    rows = []
    for block in table.blocks:
        for index, (label, entries) in enumerate(block.lines):
            titles = [block.title if index == 0 else "", label][-len(table.labels) :]
            marked = (_MARKDOWN[entry.mark].format(escaped(entry.text)) for entry in entries)
            rows.append([*map(escaped, titles), *marked])
    texts = [letter != "r" for letter in table.alignment]
    lines = [escaped(table.caption), "", *md.table(table.head, rows, texts)]
    return (
        "\n".join(
            [
                *lines,
                *(["", *(f"- {escaped(note)}" for note in table.notes)] if table.notes else []),
            ]
        )
        + "\n"
    )


def table_csv(table: PaperTable) -> str:
    """The numbers, without marks: accuracies as shares in [0, 1], an empty field where there is no
    value. A block's title is repeated.

    A line of which no entry has values is left out.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.labels, *table.values])
    for block in table.blocks:
        for label, entries in block.lines:
            if not any(entry.values for entry in entries):
                continue  # a line that only people read: its numbers stand in another one
            writer.writerow(
                [
                    *[block.title, label][-len(table.labels) :],
                    *(value for entry in entries for value in entry.values),
                ]
            )
    return file.getvalue()


FORMS = {"tex": table_latex, "md": table_markdown, "csv": table_csv}

_LATEX = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}

_MARKDOWN = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}

_NORMS = {"L∞": r"$\ell_\infty$", "L2": r"$\ell_2$", "L0": r"$\ell_0$"}

_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{'"': r"\symbol{34}", "`": r"\textasciigrave{}", "±": r"$\pm$", "×": r"$\times$"},
    **{"·": r"$\cdot$", "∞": r"$\infty$", "†": r"$^\dagger$", "τ": r"$\tau$"},
    **{"–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\dots{}"},
}  # fmt: skip


def tex(text: str) -> str:
    """The text in one line, as pdfLaTeX prints it.

    What its default fonts lack shows as its code point, such as [U+1F600].

    Blanks round ``±`` become ties, so that no line break falls there. The sign of a negative number
    is a minus. A leading ``[`` or ``*`` is braced, since after a ``\\\\`` it would be read as that
    command's argument.
    """
    shown = "".join(
        _TEX.get(letter) or (letter if _in_fonts(letter) else f"[U+{ord(letter):04X}]")
        for letter in " ".join(text.split())
    )
    shown = shown.replace(r" $\pm$ ", r"~$\pm$~").replace("--", "-{}-").replace("''", "'{}'")
    shown = re.sub(r"(?:^|(?<=[\s\[(=,]))-(?=\d)", "$-$", shown)
    return re.sub(r"^([\[*])", r"{\1}", shown)


def _in_fonts(letter: str) -> bool:
    return " " <= letter <= "~" or ("À" <= letter <= "ÿ" and letter not in "ÐÞðþ×÷")


def best_two(values: Sequence[float], teams: Sequence[int | None]) -> list[Mark]:
    """Mark the best and the second of each team.

    Ties, as printed with one decimal in %, all get the mark.

    Args:
        values: shares in [0, 1]; NaN takes no part.
        teams: who competes with whom; None takes no part.
    """
    shown = [float(f"{100 * value:.1f}") if value == value else None for value in values]
    marks: list[Mark] = [""] * len(shown)
    for team in {team for team in teams if team is not None}:
        places = {
            i: value for i, value in enumerate(shown) if value is not None and teams[i] == team
        }
        if len(places) < 2:
            continue  # there is nothing to choose from
        ranked = sorted(set(places.values()), reverse=True)
        for i, value in places.items():
            marks[i] = "best" if value == ranked[0] else "second" if value == ranked[1] else ""
    return marks


def accuracy(mean: float, std: float, n: int, failed: int) -> Entry:
    """The entry of an accuracy, a share: in % with its spread.

    ``failed``, or ``-`` if it is absent; ``*`` if some seeds failed.
    """
    finished = not math.isnan(mean)
    text = (
        percent(mean, std) + ("*" if failed else "") if finished else "failed" if failed else ABSENT
    )
    numbers = ["" if math.isnan(value) else f"{value:.6f}" for value in (mean, std)]
    return Entry(text, (*numbers, str(n), str(failed)))
