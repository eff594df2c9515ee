"""What the leaderboard page shows beyond the tables: cells, drawings, colours.

Its pictures are tested in test_page_pictures.py, its behaviour in test_page_browser.py.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import report
from benchmark.report.runs import cell_runs
from benchmark.report.sections import Section, sections
from benchmark.report.svg import curve, pareto, scatter
from benchmark.storage.record import Record
from support.made_up_records import NASTY
from support.reports import Page, record, records, rendered, summarized


def section(made: Sequence[Record] | None = None) -> Section:
    return sections(summarized(made or records()))[0]


# Cells


def test_a_cell_lists_its_runs_and_one_command_for_all_its_seeds() -> None:
    full = {
        "dataset_spec": {"name": "toy", "fingerprint": "f"},
        "attack_spec": {"name": "em", "params": {"eps": 0.5}},
        "protocol": "lite",
    }
    full |= {
        "defense_spec": {"name": "soft", "params": {}},
        "facts": {"poison": {"psnr_mean": 31.93, "rounds": 4}},
    }
    made = [
        record("em", "soft", 0.5, seed=seed, craft_seed=craft, **full)
        for craft in (0, 3)
        for seed in (2, 0)
    ]
    made.append(record("em", "soft", None, seed=4, **full))
    (cell,) = cell_runs(summarized(made).runs).values()
    assert [run.title for run in cell.runs] == [
        "seed 0",
        "seed 2",
        "seed 4",
        "seed 0, craft seed 3",
        "seed 2, craft seed 3",
    ]
    assert [command.partition("--results")[2] for command in cell.commands] == [
        " reproduced --seeds 0,2,4",
        " reproduced --seeds 0,2",
    ]
    assert "--set craft_seed=3" in cell.commands[1]
    assert "em[eps=0.5]" in cell.commands[0]
    first, failed = dict(cell.runs[0].record), dict(cell.runs[2].record)
    assert first["poison"] == "psnr mean 31.93, rounds 4"
    assert first["wall seconds"] == "purify 0.0, train 10.0"
    assert (first["test accuracy"], first["precision"], first["made with"]) == (
        "50.0 %",
        "fp32",
        "torch 2.9.1",
    )
    assert failed["test accuracy"].startswith("failed: FloatingPointError")


def test_every_cell_stands_on_the_page() -> None:
    text = rendered(records())
    assert text.count('<article class="cell card"') == sum(
        len(group.rows) * len(group.columns) for group in sections(summarized(records()))
    )
    shown = Page(text).text
    assert "there is no command" in shown  # these records hold no specs
    assert "2 failed" in shown
    assert "There are no pictures" in shown


def test_a_filter_of_one_choice_is_left_out() -> None:
    one = rendered([record("em", "soft", 0.5)])
    assert [
        name for name in ("data-set", "victim", "attack", "needs") if f'<select id="{name}"' in one
    ] == []
    assert '<select id="victim"' in rendered(records())


# Drawings


def test_a_curve_by_hand() -> None:
    drawn = curve([(0.0, 0.25, 1.0)])
    assert '<polyline class="line" points="26,78.0 121,60.0 216,6.0"/>' in drawn
    assert "band" not in drawn
    assert (
        'aria-label="Test accuracy over 3 epochs: 0.0 % after the first, 100.0 % after the last"'
        in drawn
    )
    both = curve([(0.2, 0.4), (0.4, 0.4), (0.6,)])  # the third ended early
    assert '<polyline class="line" points="26,49.2 216,49.2"/>' in both
    assert '<polygon class="band" points="26,34.8 216,49.2 216,49.2 26,63.6"/>' in both
    assert '<circle class="dot" cx="121" cy="42.0" r="3"/>' in curve([(0.5,)])


def test_a_curve_has_a_line_at_chance_and_one_at_clean_accuracy() -> None:
    drawn = curve([(0.5, 0.6)], {"chance": 0.25, "clean data, undefended": 0.75})
    assert '<path class="level chance" d="M26 60.0H216"/>' in drawn
    assert '<path class="level" d="M26 24.0H216"/>' in drawn
    assert re.findall(r'level-name" x="216" y="([\d.]+)">([^<]+)<', drawn) == [
        ("58.0", "chance"),
        ("22.0", "clean data"),
    ]
    assert "level" not in curve([(0.5, 0.6)])


@pytest.mark.filterwarnings("error")
def test_a_curve_leaves_out_what_is_no_number() -> None:
    nan = math.nan
    gap = curve([(0.2, nan, 0.4), (0.4, nan)])  # the second ended early: one value has no spread
    assert "nan" not in gap
    assert '<polyline class="line" points="26,56.4 216,49.2"/>' in gap
    assert '<polygon class="band" points="26,46.2 216,49.2 216,49.2 26,66.6"/>' in gap
    assert "3 epochs: 30.0 % after the first, 40.0 % after the last" in gap
    last = curve([(0.5, nan, math.inf)])
    assert "nan" not in last
    assert '<circle class="dot" cx="26" cy="42.0" r="3"/>' in last
    assert "50.0 % after the first, no number after the last" in last
    for lost in (curve([(nan, nan)]), curve([(nan,), (nan, nan)])):
        assert "nan" not in lost
        assert re.search("polyline|polygon|circle", lost) is None


def test_the_front_is_what_no_other_dominates() -> None:
    rng = random.Random(0)
    row = section().rows[0]
    for _ in range(50):
        rows = [
            replace(row, defense=str(i), cost=rng.randint(1, 5), worst=rng.randint(0, 5) / 5)
            for i in range(7)
        ]
        expected = [
            a
            for a in rows
            if not any(
                b.cost <= a.cost and b.worst >= a.worst and (b.cost, b.worst) != (a.cost, a.worst)
                for b in rows
            )
        ]
        found = pareto(rows, "worst")
        assert {item.defense for item in found} == {item.defense for item in expected}
        assert [item.cost for item in found] == sorted(item.cost for item in found)


def test_the_scatter_tells_the_front_and_what_is_left_out() -> None:
    found = scatter(section(), "mean")
    assert found is not None
    # the undefended costs as much as soft; rich has privileges
    assert [row.defense for row in found.front] == ["soft", "slow"]
    assert {row.defense for row in found.left_out} == {"broken", "partial"}
    assert "<title>rich: 80.0 % at 1.00×, needs clean:500</title>" in found.drawing
    assert "<title>slow: 71.0 % at 1.50×, on the front</title>" in found.drawing
    worst = scatter(section(), "worst")
    assert worst is not None
    assert "slow: 66.0 % at 1.50×, on the front" in worst.drawing
    # without an undefended training there is no cost
    assert scatter(section([record("em", "soft", 0.5)]), "mean") is None


def boxes(drawing: str) -> Iterator[tuple[float, float, float, float]]:
    for x, y, name in re.findall(
        r'<text class="name[^>]*x="([\d.]+)" y="([\d.]+)">([^<]*)<', drawing
    ):
        yield float(x), float(y) - 11, float(x) + 5.5 * len(name), float(y)


def test_names_in_the_scatter_do_not_overlap() -> None:
    def defended(name: str, acc: float, seconds: float) -> Record:
        return record("em", name, acc, seconds={"train": seconds})

    made = [
        defended("none", 0.1, 10.0),
        *(defended(f"a defense called {i}", 0.7 + i / 500, 10.0 + i / 5) for i in range(12)),
    ]
    found = scatter(section(made), "mean")
    assert found is not None
    places = list(boxes(found.drawing))
    assert len(places) >= 3
    for i, a in enumerate(places):
        assert not any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in places[:i]
        )


def test_names_in_drawings_are_escaped() -> None:
    made = [
        record("em", name, acc, seconds={"train": 1.0})
        for name, acc in (("none", 0.1), (NASTY, 0.5), ('"><script>', 0.6))
    ]
    found = scatter(section(made), "mean")
    assert found is not None
    assert "<b>" not in found.drawing
    assert "<script" not in found.drawing


# Colours


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_controls_have_enough_contrast(theme: int) -> None:
    """WCAG 2.2 asks 4.5 to 1 for texts, 3 to 1 for edges of controls and meaningful drawings."""
    style = (Path(report.__file__).parent / "leaderboard.css").read_text(encoding="utf-8")
    colours = {
        name: pair[theme]
        for name, *pair in re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", style)
    }
    colours["bar"] = "#4690ba"
    assert "--bar: #4690ba" in style

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(colours[a]), luminance(colours[b])))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "accent", "bad"):
        assert min(contrast(text, ground) for ground in ("page", "card", "hover", "none")) >= 4.5, (
            text
        )
    for mark in ("edge", "bar"):
        assert contrast(mark, "card") >= 3, mark
