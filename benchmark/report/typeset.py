"""Write one table of a paper as LaTeX, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmark.report import markdown as md
from benchmark.report.markdown import escaped
from benchmark.report.numbers import ABSENT, marked, percent

Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    ``text`` is for readers; ``values`` are the fields of the CSV, ``""`` for one without a value.
    """

    text: str
    values: tuple[str, ...]
    mark: Mark = ""

    def marked(self, mark: Mark) -> Entry:
        """The same entry with this mark."""
        return replace(self, mark=mark)


@dataclass(frozen=True)
class Block:
    """Lines under one title that spans them.

    A line consists of a label and of one entry a column.
    """

    title: str
    lines: tuple[tuple[str, tuple[Entry, ...]], ...]


@dataclass(frozen=True)
class PaperTable:
    """A table with its caption and notes.

    Attributes:
        name: of its files and of its LaTeX label; letters, digits and hyphens.
        caption: text above the table.
        labels: titles of the label columns: for blocks and lines, or for lines alone.
        columns: titles of the other columns.
        values: titles of the CSV's columns after the labels, one for each value of a line.
        blocks: the lines.
        notes: sentences below the table.
        align: a letter a column, ``r``, ``l`` or ``c``; if empty, all columns align right.
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
    """The table as a LaTeX ``table`` environment, best in bold and second underlined.

    It needs the packages ``booktabs`` and ``multirow``. Names are escaped.
    """
    body: list[str] = []
    for block in table.blocks:
        if body:
            body.append(r"    \midrule")
        for index, (label, entries) in enumerate(block.lines):
            cells = [tex(label), *(_LATEX[entry.mark].format(tex(entry.text)) for entry in entries)]
            if len(table.labels) == 2:
                title = _NORMS.get(block.title) or tex(block.title)
                if title and len(block.lines) > 1:
                    title = rf"\multirow{{{len(block.lines)}}}{{*}}{{{title}}}"
                cells.insert(0, title if index == 0 else "")
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
    """The table as GitHub-flavoured Markdown, best in bold and second underlined.

    The first line of a block holds its title.
    """
    rows = []
    for block in table.blocks:
        for index, (label, entries) in enumerate(block.lines):
            titles = [block.title if index == 0 else "", label][-len(table.labels) :]
            marked = (_MARKDOWN[entry.mark].format(escaped(entry.text)) for entry in entries)
            rows.append([*map(escaped, titles), *marked])
    texts = [letter != "r" for letter in table.alignment]
    lines = [escaped(table.caption), "", *md.table(table.head, rows, texts)]
    if table.notes:
        lines += ["", *(f"- {escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def table_csv(table: PaperTable) -> str:
    """The numbers of the table as CSV, without marks.

    Accuracies are shares in [0, 1]; a field without a value is empty. Each line repeats the title
    of its block. A line whose entries have no values is left out.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.labels, *table.values])
    for block in table.blocks:
        for label, entries in block.lines:
            if not any(entry.values for entry in entries):
                continue  # a line for readers; another line holds its numbers
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
    """The text as one line of LaTeX that pdfLaTeX prints as it is.

    A character that the default fonts lack shows as its code point, such as [U+1F600]. Spaces
    around ``±`` become ties, so that no line breaks there. The sign of a negative number is a
    minus. A leading ``[`` or ``*`` gets braces, since after ``\\\\`` LaTeX would read it as an
    argument of that command.
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
    """Mark the best and the second value of each team.

    All values that are equal when printed, in % with one decimal, get the same mark.

    Args:
        values: shares in [0, 1]; NaN is never marked.
        teams: the team of each value, which competes only within it; None is never marked.
    """
    shown = [float(f"{100 * value:.1f}") if value == value else None for value in values]
    marks: list[Mark] = [""] * len(shown)
    for team in {team for team in teams if team is not None}:
        places = {
            i: value for i, value in enumerate(shown) if value is not None and teams[i] == team
        }
        if len(places) < 2:
            continue  # a single value has no competitor
        ranked = sorted(set(places.values()), reverse=True)
        for i, value in places.items():
            marks[i] = "best" if value == ranked[0] else "second" if value == ranked[1] else ""
    return marks


def accuracy(mean: float, std: float, n: int, failed: int, *, doubted: bool = False) -> Entry:
    """The entry of an accuracy (a share in [0, 1]): in % with its spread.

    ``!`` says that the number is in doubt, ``*`` that some seeds failed. Without a mean, the text
    is ``failed`` if seeds failed, and ``-`` else.
    """
    if math.isnan(mean):
        text = "failed" if failed else ABSENT
    else:
        text = marked(percent(mean, std), doubted) + ("*" if failed else "")
    numbers = ["" if math.isnan(value) else f"{value:.6f}" for value in (mean, std)]
    return Entry(text, (*numbers, str(n), str(failed)))
