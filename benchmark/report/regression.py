"""Write a night's verdict (``findings.Verdict``) as Markdown and as JUnit XML.

The module is pure: it returns texts and writes no files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from benchmark.analysis.cells import CellId
from benchmark.analysis.findings import Change, Finding, Kind, Verdict
from benchmark.report import markdown as md
from benchmark.report.markdown import escaped
from benchmark.report.numbers import ABSENT, times

ALL = "all cells together"

HOW_TO_READ = (
    "**exact**: every run has an accepted one of the same seed, made on a CPU with the same "
    "versions, device and threads, and must equal it to the last bit; any difference is a *drift*.",
    "**statistical**: the mean over seeds against the mean of the accepted runs. q is the p-value "
    "adjusted for the number of cells; "
    "cells up to 0.05 are *suspect*, or an *improvement*.",
    "**untested**: no cell has two runs, so that nothing is known of chance. Such a night is not "
    "fine.",
    "A *suspect* becomes a *regression* if a rerun with other victim seeds is lower too, and is "
    "*not confirmed* otherwise.",
    "*Slower* and *faster* are wall times, which are noisy; they fail no night.",
)


def headline(verdict: Verdict) -> str:
    """The night in one line.

    For example ``2 findings that matter: 1 drift, 1 failed; 12 cells, 10 of them exact``.
    """
    serious = [str(finding.kind) for finding in verdict.findings if finding.matters]
    counts = ", ".join(f"{serious.count(kind)} {kind}" for kind in dict.fromkeys(serious))
    exact = sum(change.lane == "exact" for change in verdict.changes)
    untested = sum(change.lane == "untested" for change in verdict.changes)
    cells = f"{len(verdict.changes)} cells, {exact} of them exact" + (
        f", {untested} NOT TESTED" if untested else ""
    )
    if not serious:
        return f"nothing that matters; {cells}"
    return (
        f"{len(serious)} finding{'s that matter' if len(serious) > 1 else ' that matters'}: "
        f"{counts}; {cells}"
    )


def night_markdown(verdict: Verdict, title: str, context: Mapping[str, str]) -> str:
    """The night as GitHub-flavoured Markdown: findings, every cell, how to read it."""
    lines = [
        f"# {escaped(title)}: {'not fine' if verdict.matters else 'fine'}",
        "",
        f"{headline(verdict)}.",
        "",
    ]
    groups: dict[str, list[Change]] = {}
    for change in verdict.changes:
        groups.setdefault(change.cell.group, []).append(change)
    if verdict.findings:
        rows = [
            [finding.kind, where(finding, full=len(groups) > 1), finding.message]
            for finding in verdict.findings
        ]
        lines += ["## Findings", "", *_table(["finding", "cell", "what"], rows, left=3), ""]
    if verdict.notes:
        lines += ["## Remarks", "", *(f"- {escaped(note)}" for note in verdict.notes), ""]
    head = [
        *("cell", "lane", "accepted, %", "n", "tonight, %", "n"),
        *("points", "q", "seconds", "ratio"),
    ]
    for group, changes in groups.items():
        lines += [
            f"## {escaped(group)}",
            "",
            *_table(head, [_row(change) for change in changes], left=2),
            "",
        ]
    lines += ["## How to read this", "", *(f"- {line}" for line in HOW_TO_READ), ""]
    lines += [f"- {escaped(name)}: {escaped(value)}" for name, value in context.items()]
    return "\n".join(lines) + "\n"


def junit(verdict: Verdict, suite: str, date: str) -> bytes:
    """The night as JUnit XML in the dialect that CI servers read.

    There is one test case a cell, and one for all cells together. A finding that matters is a
    failure, or an error if the runs themselves failed; other findings are the output of the test
    case. A cell that could not be tested is skipped.
    """
    by_cell: dict[CellId | None, list[Finding]] = {
        None: [],
        **{change.cell: [] for change in verdict.changes},
    }
    for finding in verdict.findings:
        by_cell[finding.cell].append(finding)
    untested = {change.cell for change in verdict.changes if change.lane == "untested"}
    seconds = {
        change.cell: change.seconds for change in verdict.changes if not math.isnan(change.seconds)
    }
    root = ElementTree.Element("testsuites")
    suite_node = ElementTree.SubElement(
        root,
        "testsuite",
        name=_legal(suite),
        tests=str(len(by_cell)),
        timestamp=date.removesuffix("Z"),
    )
    for cell, findings in by_cell.items():
        classname, name, time = (
            (suite, ALL, 0.0) if cell is None else (cell.group, cell.name, seconds.get(cell, 0.0))
        )
        case = ElementTree.SubElement(
            suite_node,
            "testcase",
            classname=_legal(classname),
            name=_legal(name),
            time=f"{time:.3f}",
        )
        serious, rest = (
            [item for item in findings if item.matters is matters] for matters in (True, False)
        )
        if serious:
            tag = "error" if serious[0].kind is Kind.failed else "failure"
            ElementTree.SubElement(
                case, tag, type=serious[0].kind, message=_legal(serious[0].message)
            ).text = _listed(serious)
        elif cell in untested:
            ElementTree.SubElement(
                case, "skipped", message="not tested: nothing is known of chance"
            )
        if rest:
            ElementTree.SubElement(case, "system-out").text = _listed(rest)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite_node.set(attribute, str(len(suite_node.findall(f"testcase/{tag}"))))
    suite_node.set("time", f"{sum(seconds.values()):.3f}")
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _listed(findings: Sequence[Finding]) -> str:
    return _legal("\n".join(f"{finding.kind}: {finding.message}" for finding in findings))


def where(finding: Finding, full: bool = True) -> str:
    """The name of the finding's cell; with ``full`` also its data set, victim and protocol."""
    if finding.cell is None:
        return ALL
    return f"{finding.cell.group} / {finding.cell.name}" if full else finding.cell.name


def _row(change: Change) -> list[str]:
    return [
        change.cell.name,
        change.lane or ABSENT,
        _number(100 * change.before, ".2f"),
        str(change.n_before),
        _number(100 * change.after, ".2f"),
        str(change.n_after),
        _number(100 * (change.after - change.before), "+.2f"),
        _number(change.q, ".2g"),
        _number(change.seconds, ".1f"),
        times(change.slowdown),
    ]


def _number(value: float, form: str) -> str:
    return ABSENT if math.isnan(value) else f"{value:{form}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A Markdown table whose first ``left`` columns are texts."""
    cells = [[escaped(text) for text in row] for row in rows]
    return md.table(head, cells, [column < left for column in range(len(head))])


def _legal(text: str) -> str:
    """The text without characters that XML 1.0 cannot hold, such as escape codes."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", text)
