"""A night's report as Markdown, as JUnit XML and in a sentence, and its history as a figure."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmark.analysis.baseline import Night
from benchmark.analysis.cells import CellId, cell_of
from benchmark.analysis.findings import Kind, Verdict
from benchmark.analysis.regression import compare
from benchmark.report import history as history_figure
from benchmark.report.regression import headline, junit, night_markdown
from support.made_up_nights import GOLDEN, STEADY, THERE, lower, night, record

# Reports


def verdict_of_every_kind() -> Verdict:
    """Return a verdict with every kind of finding but a few.

    Those are ``suspect``, ``faster`` and the findings on the whole night.
    """
    accepted = night({**STEADY, "drifts": (0.5,), "gone": (0.5,), "slow": (0.5,)})
    levels = {**lower(STEADY, 0.02, only=["a1", "a2"]), "a3": [0.56, 0.564, 0.568]}
    here: list[tuple[str, float | None, dict[str, Any]]] = [
        ("drifts", 0.4, {}),
        ("fails", None, {"error": "loss | is `nan`"}),
        ("fresh", 0.5, {}),
        ("slow", 0.5, {"seconds": {"train": 40.0}}),
    ]
    tonight = [
        *night(levels, environment=THERE, date="2026-11-27"),
        *(record(name, acc, date="2026-11-27", **more) for name, acc, more in here),
    ]
    return compare(
        accepted,
        tonight,
        [record(name, acc, seed) for name, acc in (("a1", 0.49), ("a2", 0.53)) for seed in (3, 4)],
    )


def test_markdown_equals_the_golden_file() -> None:
    """The golden file shows the night.

    ``UEBENCH_REGENERATE=1 pytest tests/report/test_regress_report.py`` writes it anew. Look at the
    difference before committing it.
    """
    verdict = verdict_of_every_kind()
    assert {item.kind for item in verdict.findings} == {*Kind} - {
        Kind.suspect,
        Kind.faster,
        Kind.stale,
        Kind.untested,
    }
    text = night_markdown(verdict, "toy", {"command": "run_benchmark.py regress toy"})
    if "UEBENCH_REGENERATE" in os.environ:
        (GOLDEN / "regress.md").write_text(text, encoding="utf-8")
    assert text == (GOLDEN / "regress.md").read_text(encoding="utf-8")


def test_junit_has_one_case_a_cell_and_counts_that_hold() -> None:
    verdict = verdict_of_every_kind()
    root = ElementTree.fromstring(junit(verdict, "toy", "2026-11-26T03:00:00Z"))
    (suite,) = root
    cases = suite.findall("testcase")
    assert (root.tag, suite.tag, suite.get("name"), suite.get("timestamp")) == (
        "testsuites",
        "testsuite",
        "toy",
        "2026-11-26T03:00:00",
    )
    assert suite.get("tests") == str(len(cases)) == str(len(verdict.changes) + 1)
    assert suite.get("failures") == str(len(suite.findall("testcase/failure"))) == "3"
    assert (suite.get("errors"), suite.get("skipped")) == ("1", "0")
    assert float(suite.get("time", "")) == pytest.approx(
        sum(float(case.get("time", "")) for case in cases)
    )
    by_name = {case.get("name"): case for case in cases}
    failure = by_name["a1 + none"].find("failure")
    assert failure is not None
    assert (failure.get("type"), by_name["a1 + none"].get("classname")) == (
        "regression",
        "toy / net / quick",
    )
    assert (failure.text or "").startswith("regression: -2.00 points")
    assert by_name["fails + none"].find("error") is not None
    assert list(by_name["a9 + none"]) == []
    assert "slower: " in (by_name["slow + none"].findtext("system-out") or "")


def test_hostile_names_stay_texts() -> None:
    nasty = '<b>"x" & $y$ | `z`\x1b[31m\x00</b>\nnew'
    verdict = compare([record(nasty, 0.5)], [record(nasty, 0.4), record("b", None, error=nasty)])
    case = ElementTree.fromstring(junit(verdict, nasty, "")).findall("testsuite/testcase")
    assert case[1].get("name", "").startswith('<b>"x" & $y$ | `z`�[31m�</b>')
    lines = night_markdown(verdict, nasty, {}).splitlines()
    assert not [line for line in lines if "<b>" in line]
    assert [line.count(" | ") for line in lines if line.startswith("| drift")] == [2]


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (
            lambda: compare(night(STEADY), night(STEADY)),
            "nothing that matters; 10 cells, 10 of them exact",
        ),
        (
            lambda: compare([record("a", 0.5)], [record("a", 0.4)]),
            "1 finding that matters: 1 drift; 1 cells, 1 of them exact",
        ),
        (
            lambda: compare(night({"a": (0.5,), "b": (0.5,)}), []),
            "2 findings that matter: 2 missing; 2 cells, 0 of them exact",
        ),
    ],
)
def test_the_night_in_a_sentence(verdict: Callable[[], Verdict], text: str) -> None:
    assert headline(verdict()) == text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures of histories; the fixture keeps them from being written."""
    figures: list[Figure] = []

    def keep(figure: Figure) -> dict[str, bytes]:
        figures.append(figure)
        return {"png": b"-"}

    monkeypatch.setattr(history_figure, "files", keep)
    return figures


def falling(
    names: Sequence[str], nights: int = 12
) -> tuple[list[CellId], dict[CellId, Sequence[float]], list[Night]]:
    """Return cells, their accepted runs, and nights from 2026-11-10 on.

    The first cell loses a point each night.
    """
    cells = [cell_of(record(name, 0.5)) for name in names]
    runs = [0.5, 0.504, 0.508]
    made = [
        Night(
            f"2026-11-{10 + day}",
            {cell: tuple(acc - day / 100 * (cell is cells[0]) for acc in runs) for cell in cells},
        )
        for day in range(nights)
    ]
    return cells, dict.fromkeys(cells, runs), made


def test_the_history_has_two_panels_a_cell_and_marks_what_moved(drawn: list[Figure]) -> None:
    _, accepted, nights = falling(("falls", "stays", "$x_1$"))
    assert history_figure.history(accepted, "2026-11-12", nights, "toy") == {"png": b"-"}
    axes = drawn[0].axes
    assert len(axes) == 6
    titles = {item.get_title(loc="left"): item._left_title.get_color() for item in axes[::2]}  # type: ignore[attr-defined]
    assert titles == {
        "$x_1$ + none": "#1b1f24",
        "falls + none": "#a1232b",
        "stays + none": "#1b1f24",
    }
    (up,) = (line for line in axes[1].lines if line.get_color() == history_figure.UP)
    # the nights after the acceptance
    assert np.asarray(up.get_xdata()).tolist() == list(range(3, 12))
    assert history_figure.history(accepted, "", [], "toy") == {}
    assert history_figure.history({}, "", nights, "toy") == {}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_history_explains_its_signs_and_no_others(drawn: list[Figure]) -> None:
    cells, accepted, nights = falling(("falls", "stays"))
    found: history_figure.Found = {
        cells[0]: [("regression", True), ("slower", False)],
        None: [("suspect", True)],
    }
    history_figure.history(accepted, "2026-11-12", nights, "toy", found)
    history_figure.history(accepted, "2026-11-01", nights, "toy")
    told, plain = map(legend, drawn)
    only_there = [
        "nights before the acceptance: not summed",
        "acceptance of the baseline",
        "tonight, with the finding below",
    ]
    assert [text for text in told if text not in plain] == only_there
    assert plain[1:] == [
        *(
            "accepted mean",
            "± 2 standard deviations of a run",
            "cumulative sum upward",
            "cumulative sum downward",
        ),
        "its limit, ±5; beyond it the title is red",
    ]
    falls, sums, stays = drawn[0].axes[:3]
    lines = {
        str(line.get_color()): np.asarray(line.get_xdata()).tolist()
        for line in falls.lines
        if line.get_linestyle() == "-"
    }
    # grey before the acceptance, and not joined to the line after it
    assert lines["#9aa2ac"] == [0, 1, 2]
    assert lines["#0072b2"] == list(range(3, 12))
    assert [text.get_text() for text in sums.texts if text.get_text().startswith("tonight")] == [
        "tonight: regression, slower"
    ]
    # the sum is beyond what is drawn
    assert any(text.get_text().startswith("−") for text in sums.texts)
    # the ring
    assert [
        sum(line.get_markerfacecolor() == "none" for line in axes.lines) for axes in (falls, stays)
    ] == [1, 0]
    assert drawn[0].texts[0].get_text() == "toy: suspect in all cells together"
    history_figure.history(accepted, "2026-12-01", nights, "toy")
    assert legend(drawn[2])[:2] == ["nights before the acceptance: not summed", "accepted mean"]


def test_the_history_is_a_png_and_a_pdf_and_always_the_same() -> None:
    cell = cell_of(record("a", 0.5))
    one, two = (
        history_figure.history(
            {cell: [0.5]}, "", [Night("2026-11-26", {cell: (0.5,)}), Night("2026-11-27", {})], "toy"
        )
        for _ in range(2)
    )
    assert one == two
    assert one["png"].startswith(b"\x89PNG")
    assert one["pdf"].startswith(b"%PDF")
