"""The report's further figures: what they show, by hand, and where they are not drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmark.report.figures import draw, style
from benchmark.report.figures.bars import draw_bars
from benchmark.report.figures.cost import draw_cost
from benchmark.report.figures.curves import draw_curves
from benchmark.report.figures.ranks import draw_ranks
from benchmark.report.figures.sweeps import by_ratio, sweeps
from benchmark.report.sections import Row, sections
from benchmark.report.svg import pareto
from benchmark.report.write import write_report
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.command_line import Call
from support.made_up_records import NASTY
from support.reports import TEN, cell, is_rewritten, record, summarized


def section(records: list[Record]) -> Any:
    return sections(summarized(records))[0]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "files", lambda figure, pdf=True: {"png": b"-", "pdf": b"-"})


def swept(values: list[float], attacks: tuple[str, ...] = ("em",)) -> list[Record]:
    return [
        one
        for value in values
        for attack in attacks
        for one in cell(
            attack,
            f"rate[kd={value}]",
            0.5 + value / 100,
            defense_spec={
                "name": "rate",
                "version": 1,
                "params": {"kd": value, "w": 8, "on": True},
            },
        )
    ]


def test_each_is_drawn_only_where_its_data_are(undrawn: None) -> None:
    one = summarized(cell("em", "soft", 0.5))
    drawn, left_out = draw.figures(one, sections(one))
    assert list(drawn) == ["bars"]
    assert [reason.partition(":")[0] for reason in left_out] == ["cost", "ranks", "sweep", "ratios"]
    assert (
        "ranks: 1 attacks and 1 defenses that cover them, at least 5 and 3 are needed" in left_out
    )
    made = [
        *swept([1.0, 2.0, 4.0]),
        *cell("em", "none", 0.1),
        *cell("em", "none", 0.4, ratio=0.5),
        *cell("a", "none", 0.2, victim="other"),
    ]
    for attack in "abcde":
        for name, acc in (("x", 0.5), ("y", 0.6), ("z", 0.7)):
            made += cell(attack, name, acc, victim="other")
    table = summarized(made)
    drawn, left_out = draw.figures(table, sections(table))
    # ratio 0.5; ratio 1; the other victim
    expected = {"bars", "bars-2", "cost-2", "sweep-2", "bars-3", "cost-3", "ranks-3", "ratios"}
    assert set(drawn) == expected
    assert [reason.partition(":")[0] for reason in left_out] == [
        "cost",
        "ranks",
        "sweep",
        "ranks-2",
        "sweep-3",
    ]


def test_bars_show_spread_failures_and_gaps() -> None:
    made = [
        *cell("em", "none", 0.1, 0.2),
        *cell("em", "soft", 0.6, None),
        *cell("em", "bad", None),
        *cell("lsp", "none", 0.3),
    ]
    with rc_context(style.STYLE):
        figure = draw_bars(section(made))
    shown = texts(figure)
    assert {"15.0 ± 7.1", "60.0*", "failed", "-", "* some seeds failed"} <= set(shown)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["em", "lsp"]
    spreads = [
        sum(isinstance(drawn, ErrorbarContainer) for drawn in axes.containers)
        for axes in figure.axes
    ]
    # of the one cell with two seeds: a cap on a bar of one seed would say that it has no spread
    assert spreads == [1, 0]


def at_levels(figure: Figure, upright: bool = False) -> list[list[float]]:
    """Return the places, in %, of the lines across each panel that stand for no defense."""
    axis = 0 if upright else 1
    return [
        [
            float(line.get_xydata()[0][axis])
            for line in axes.lines
            if line.get_xydata().tolist()[0][1 - axis] == 0
            and line.get_xydata().tolist()[-1][1 - axis] == 1
            and len(line.get_xydata()) == 2
            and line.get_xydata()[0][axis] == line.get_xydata()[1][axis]
        ]
        for axes in figure.axes
    ]


def test_accuracies_have_a_line_at_chance_and_one_at_clean_accuracy() -> None:
    made = [
        record(attack, name, acc, facts={"data": TEN}, curve=(0.3, acc))
        for attack, name, acc in (
            *(("none", "none", 0.75), ("none", "soft", 0.7)),
            *(("em", "none", 0.2), ("em", "soft", 0.6)),
        )
    ]
    with rc_context(style.STYLE):
        drawn = draw_bars(section(made)), draw_curves(section(made)), draw_cost(section(made))
    for figure, upright, panels in zip(drawn, (True, False, False), (2, 2, 1), strict=True):
        assert isinstance(figure, Figure)
        assert at_levels(figure, upright) == [[pytest.approx(10), pytest.approx(75)]] * panels
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names == ["chance: 10.0 %", "clean data, undefended: 75.0 %"]
    # a record that names no number of classes has no chance
    bars = draw_bars(section([record("none", "none", 0.75), record("em", "soft", 0.6)]))
    assert at_levels(bars, upright=True) == [[pytest.approx(75)]] * 2
    assert draw_bars(section([record("em", "soft", 0.6)])).legends == []


def test_where_clean_data_teach_nothing_nothing_is_ranked_in_a_figure(undrawn: None) -> None:
    made = [
        record(attack, name, 0.1, facts={"data": TEN})
        for attack in ("none", *"abcde")
        for name in ("none", "x", "y", "z")
    ]
    table = summarized(made)
    drawn, left_out = draw.figures(table, sections(table))
    assert list(drawn) == ["bars"]
    for name in ("cost", "ranks"):
        assert f"{name}: clean accuracy is near chance" in left_out


def row(name: str, cost: float, mean: float, needs: str = "") -> Row:
    return Row(
        1, name, False, mean, math.nan, 1, mean, "", math.nan, math.nan, cost, 1, 1, "", needs, ()
    )


def test_the_pareto_front_by_hand() -> None:
    rows = [
        row("a", 1.0, 0.2),
        row("b", 1.0, 0.5),
        row("c", 2.0, 0.4),
        row("d", 3.0, 0.7),
        row("e", 4.0, 0.7),
        row("f", 3.0, 0.7),
    ]
    assert [one.defense for one in pareto(rows)] == ["b", "d", "f"]


def test_cost_marks_the_front_and_leaves_out_what_has_no_mean() -> None:
    made = [
        record("em", name, acc, seconds={"train": 10.0, "purify": extra})
        for name, acc, extra in (("none", 0.1, 0.0), ("soft", 0.6, 20.0))
    ]
    made += [
        record("em", "rich", 0.9, needs=("clean:5",), seconds={"train": 10.0}),
        record("em", "bad", None),
    ]
    with rc_context(style.STYLE):
        figure = draw_cost(section(made))
    assert isinstance(figure, Figure)
    assert {"none (undefended)", "soft", "rich †"} <= set(texts(figure))
    assert "bad" not in texts(figure)
    label = figure.axes[0].get_xlabel()
    assert label == "cost: wall seconds to purify and train, in undefended trainings"
    assert (
        draw_cost(section([record("em", "soft", 0.5)]))
        == "0 defenses with a mean over attacks and a cost, at least 2 are needed"
    )


def test_names_of_points_do_not_cover_each_other() -> None:
    made = [
        record("em", f"defense{i}", 0.5 + 0.001 * i, seconds={"train": 10.0 + 0.1 * i})
        for i in range(6)
    ]
    made += [record("em", "none", 0.5, seconds={"train": 10.0})]
    with rc_context(style.STYLE):
        figure = draw_cost(section(made))
        assert isinstance(figure, Figure)
        figure.savefig("/dev/null", format="png")
    axes = figure.axes[0]
    places = [
        text.get_window_extent() for text in axes.texts if text.get_text().startswith("defense")
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])


def test_ranks_are_of_the_defenses_that_cover_all_attacks() -> None:
    made = [
        one
        for attack in "abcdef"
        for name, acc in (("x", 0.5), ("y", 0.6), ("z", 0.7), ("none", 0.1))
        for one in cell(attack, name, acc)
    ]
    made += [
        *cell("a", "partial", 0.99),
        *[one for attack in "abcdef" for one in cell(attack, "rich", 0.9, needs=("clean:5",))],
    ]
    with rc_context(style.STYLE):
        figure = draw_ranks(section(made))
    assert isinstance(figure, Figure)
    shown = texts(figure)
    assert {"z  1.00", "y  2.00", "3.00  x"} <= set(shown)
    assert "mean rank over 6 attacks, 1 is best; Friedman p < 0.0001: they differ" in shown
    assert not any("partial" in text or "rich" in text or "none" in text for text in shown)


def test_ratios_begin_with_clean_data_and_have_gaps() -> None:
    made = [
        *cell("none", "soft", 0.9),
        *cell("em", "soft", 0.8, 0.6, ratio=0.2),
        *cell("em", "soft", None, ratio=0.5),
        *cell("em", "soft", 0.5),
    ]
    made += cell("lsp", "soft", 0.4)  # at one ratio only: no curve
    ((title, panels, anchors, levels),) = by_ratio(summarized(made))
    assert (title, anchors, levels) == ("toy · net · quick", set(), {})
    made.append(record("none", "none", 0.95, facts={"data": TEN}))
    assert next(by_ratio(summarized(made)))[3] == {"chance": 0.1, "clean data, undefended": 0.95}
    (panel,) = panels
    (line,) = panel.lines
    assert list(line.x) == [0.0, 0.2, 0.5, 1.0]
    assert line.mean == pytest.approx([90, 70, math.nan, 50], nan_ok=True)
    assert line.std[1] == pytest.approx(100 * math.sqrt(0.02))
    assert list(by_ratio(summarized(cell("em", "soft", 0.5)))) == []


def test_a_sweep_is_of_one_numeric_parameter_alone() -> None:
    ((panel,),) = sweeps(
        summarized([*swept([1.0, 4.0, 16.0], ("none", "em")), *cell("em", "soft", 0.5)])
    )
    assert panel.title == "rate: kd"
    assert panel.log
    assert [line.name for line in panel.lines] == ["clean data", "em"]
    assert panel.lines[1].mean == pytest.approx([51, 54, 66])
    assert list(panel.lines[1].x) == [1, 4, 16]
    assert sweeps(summarized(swept([1.0, 4.0]))) == [[]]
    two = swept([1.0, 2.0, 3.0])
    two[2] = Record(
        **{
            **vars(two[2]),
            "defense_spec": {
                "name": "rate",
                "version": 1,
                "params": {"kd": 3.0, "w": 9, "on": True},
            },
        }
    )
    assert sweeps(summarized(two)) == [[]]  # two parameters differ
    ((linear,),) = sweeps(summarized(swept([0.0, 1.0, 2.0])))
    assert not linear.log


def test_hostile_names_are_drawn_as_they_are() -> None:
    made = [
        record(attack, name, 0.5, dataset=NASTY)
        for attack in ("none", NASTY)
        for name in ("none", NASTY, "$\\frac{")
    ]
    with rc_context(style.STYLE):
        figure = draw_bars(section(made))
        assert style.files(figure)["png"].startswith(b"\x89PNG")
        cost = draw_cost(section(made))
        assert isinstance(cost, Figure)
        assert style.files(cost)["pdf"].startswith(b"%PDF")


# Of many cells


def many(
    defenses: int = 15,
    attacks: int = 8,
    victims: tuple[str, ...] = ("a", "b", "c"),
    step: float = 0.035,
) -> list[Record]:
    """Return more cells than the report draws one by one.

    Defense 0 does nothing, attack 0 leaves data clean; of the other defenses the last is best.
    """
    return [
        record(
            f"attack{attack}" if attack else "none",
            f"defense{defense}" if defense else "none",
            0.1 + step * defense + 0.001 * attack,
            victim=victim,
        )
        for victim in victims
        for attack in range(attacks)
        for defense in range(defenses)
    ]


def test_of_many_cells_there_is_an_overview_that_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []

    def keep(figure: Figure, pdf: bool = True) -> dict[str, bytes]:
        drawn.append(figure)
        return {"png": b"-"} | ({"pdf": b"-"} if pdf else {})

    monkeypatch.setattr(style, "files", keep)
    table = summarized(many())
    report = write_report(table, tmp_path, "t")
    names = {file.name for file in report.files if file.suffix in (".png", ".pdf")}
    assert names == {f"{name}.png" for name in ("heatmap", "bars", "cost", "ranks")}
    assert report.overview == (
        "360 cells are too many to draw one by one: there is an overview of the first of 3 groups, "
        "without curves over epochs, ratios or parameters and without PDF files. "
        "report --figures draws everything, in about 1 min"
    )
    for name in ("leaderboard.html", "leaderboard.md", "report.json"):
        assert report.overview in (tmp_path / name).read_text(encoding="utf-8")
    assert (tmp_path / "leaderboard.html").read_text(encoding="utf-8").count(
        "<summary>Heat map"
    ) == 1
    heatmap, bars = drawn[0], drawn[1]
    assert "toy · a · quick · 12 of 15 defenses" in texts(heatmap)
    assert "defense14" in texts(heatmap)
    assert "none (undefended)" in texts(heatmap)  # the anchor is always among those shown
    assert not [text for text in texts(heatmap) if text in ("defense1", "defense2", "defense3")]
    assert "59.1" in texts(heatmap)  # of 96 cells; a larger map shows colours alone
    assert "toy · a · quick · 12 of 15 defenses" in texts(bars)
    assert [axes.get_title(loc="left") for axes in bars.axes] == ["mean over attacks", "clean data"]
    assert texts(bars)[0] == "59.4!"  # defense14 over attacks 1 to 7, which do not bite

    assert not is_rewritten(table, tmp_path)
    assert write_report(table, tmp_path, "t").overview == report.overview
    every = write_report(table, tmp_path, "t", every_figure=True)
    assert every.overview == ""
    assert {"curves-3.pdf", "heatmap-3.pdf", "bars.pdf"} <= {file.name for file in every.files}


def test_an_overview_of_many_attacks_shows_some_and_says_how_many() -> None:
    wide = draw._best(section(many(3, 40, ("a",))))
    assert len(wide.columns) == len(wide.rows[0].cells) == draw.COLUMNS
    assert wide.title == "toy · a · quick · 23 of 39 attacks"
    small = section(many(3, 4, ("a",)))
    assert draw._best(small).title == small.title


def test_ranks_among_all_defenses_where_the_best_are_drawn() -> None:
    made = section(many(9, 8, ("a",)))
    whole, part = draw_ranks(made), draw_ranks(made, 3)
    assert isinstance(whole, Figure)
    assert isinstance(part, Figure)
    assert "toy · a · quick · best 3 of 8" in texts(part)
    assert {"defense8  1.00", "defense7  2.00", "3.00  defense6"} < set(texts(part))
    assert not [text for text in texts(part) if "defense5" in text]
    critical = [text for text in texts(whole) if text.startswith("critical difference")]
    assert critical == [text for text in texts(part) if text.startswith("critical difference")]


def test_the_choice_to_draw_everything_is_remembered(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "FULL", 1)
    monkeypatch.setattr(style, "files", lambda figure, pdf=True: {"png": b"-"})
    store = Store(tmp_path / "results" / "store")
    for index, one in enumerate(many(2, 2, ("a",))):
        store.publish_record(replace(one, key=f"{index:064x}"))
    assert "4 cells are too many to draw one by one" in call("report", "--all").out
    assert not (tmp_path / "results" / "all" / "heatmap.pdf").exists()
    for options in (["--figures"], []):
        assert "too many" not in call("report", "--all", *options).out
        assert (tmp_path / "results" / "all" / "heatmap.pdf").exists()
    assert "too many" in call("report", "--all", "--no-figures").out
    assert "too many" in call("report", "--all").out


def test_names_without_room_are_left_out_and_counted() -> None:
    crowded = draw_cost(section(many(25, 3, ("a",), 0.004)))  # of equal cost
    assert isinstance(crowded, Figure)
    shown = texts(crowded)
    named = [text for text in shown if text.startswith("defense") or "undefended" in text]
    (note,) = (text for text in shown if "no room for" in text)
    assert (
        note
        == f"line: no other is both cheaper and better; no room for {25 - len(named)} of 25 names"
    )
    assert "defense24" in named
    assert 5 < len(named) < 25
