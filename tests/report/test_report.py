"""The report's files: golden texts, a page that loads nothing, plots, and a terminal table.

The plots are deterministic, and the terminal table cuts no number.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmark.report.figures import curves, draw, style
from benchmark.report.markdown_report import leaderboard_csv, report_markdown
from benchmark.report.numbers import number, percent, shade, times
from benchmark.report.sections import sections
from benchmark.report.terminal import print_leaderboard
from benchmark.report.write import is_current, write_report
from benchmark.storage.record import Record
from support.made_up_records import NASTY
from support.reports import TEN, Page, is_rewritten, record, records, rendered, summarized

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make coarse PNG files, no PDF and no further figures, which saves time embedding fonts.

    The tests that use it are about something else.
    """

    def coarse(figure: Figure) -> dict[str, bytes]:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=30)
        return {"png": png.getvalue()}

    monkeypatch.setattr(style, "files", coarse)
    monkeypatch.setattr(draw, "figures", lambda table, sections: ({}, []))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(
        summarized(records()), folder, "toy report", context={"command": "run_benchmark.py run toy"}
    )
    return folder


@pytest.mark.parametrize("name", ["leaderboard.md", "leaderboard.csv", "cells.csv"])
def test_texts_equal_the_golden_files(name: str, written: Path) -> None:
    """The golden files hold the report's texts.

    ``UEBENCH_REGENERATE=1 pytest tests/report/test_report.py`` writes them anew. Look at the
    difference before committing it.
    """
    text = (written / name).read_text(encoding="utf-8")
    if os.environ.get("UEBENCH_REGENERATE") == "1":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_report_is_complete(written: Path) -> None:
    names = ("heatmap", "curves", "bars", "cost")
    plotted = {
        f"{name}{number}.{ending}"
        for name in names
        for number in ("", "-2")
        for ending in ("png", "pdf")
    }
    tables = {
        f"table-{name}.{ending}"
        for name in ("attacks", "attacks-2", "victims")
        for ending in ("tex", "md", "csv")
    }
    texts = {"leaderboard.md", "leaderboard.csv", "leaderboard.html", "cells.csv", "report.json"}
    assert {path.name for path in written.iterdir()} == plotted | tables | texts
    assert (written / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert (written / "curves-2.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_is_whole_and_loads_nothing(written: Path) -> None:
    text = (written / "leaderboard.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    # A header and a row a defense: toy/net without needs, with needs, its cells; then toy/other and
    # its cells.
    assert page.rows == [6, 2, 7, 3, 3]
    assert set(page.sorts) == {"none"}
    for shown in (
        "71.0 ± 1.4",
        "mean over attacks",
        "worst attack",
        "price on clean data",
        "failed",
        "run_benchmark.py run toy",
        "the loss is nan",
    ):
        assert shown in page.text
    assert "default-src 'none'" in text


def test_every_form_says_whose_seconds_the_cost_counts() -> None:
    timed = [replace(one, cpu_seconds=one.seconds) for one in records()]
    for made, words in ((timed, "CPU seconds"), ([*timed, *records()[:1]], "wall seconds")):
        summary = summarized(made)
        file = io.StringIO()
        print_leaderboard(summary, Console(file=file))
        groups = sections(summary)
        assert groups[0].clock == words
        assert f"price in points, cost by {words}\n" in file.getvalue()
        assert f". Cost by {words}.\n" in report_markdown(summary, groups, "t", {})
        html = Page(rendered(made)).text
        assert f"price in points, cost by {words}." in html
        assert f"cost: {words} to purify and train, in undefended trainings" in html
        assert leaderboard_csv(summary).splitlines()[0].split(",").count("clock") == 1


def test_names_are_escaped_everywhere(tmp_path: Path, quick_plots: None) -> None:
    made = [
        record(attack, name, 0.5, dataset=NASTY, error=NASTY)
        for attack in ("none", NASTY)
        for name in ("none", NASTY)
    ]
    made.append(record("lsp", NASTY, None, dataset=NASTY, error=NASTY))
    write_report(summarized(made), tmp_path, NASTY, context={NASTY: NASTY})
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert NASTY not in html
    assert "<b>&#34;" not in html
    assert Page(html).text.count(NASTY) > 8
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "<b>" not in markdown
    assert "\\|" in markdown
    widths = {
        line.replace("\\|", "").count("|")
        for line in markdown.splitlines()
        if line.startswith("| ")
    }
    assert widths == {10, 5}


def test_the_same_table_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_report(
        summarized(reversed(records())),
        tmp_path,
        "toy report",
        context={"command": "run_benchmark.py run toy"},
    )
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_current_report_is_left_alone_and_a_stale_one_written_anew(
    tmp_path: Path, quick_plots: None
) -> None:
    made = [record("em", "none", 0.1), record("em", "soft", 0.5, victim="other")]
    report = write_report(summarized(made), tmp_path, "t")
    assert report.html in report.files
    assert not is_rewritten(summarized(reversed(made)), tmp_path)
    assert write_report(summarized(made), tmp_path, "t") == report
    (tmp_path / "heatmap-2.png").write_bytes(b"cut")
    assert is_rewritten(summarized(made), tmp_path)
    assert is_rewritten(summarized(made), tmp_path, "another title")
    assert is_rewritten(summarized(made[:1]), tmp_path)  # without the second group's plots
    assert sorted(path.name for path in tmp_path.glob("*-2.*")) == []


def test_labels_that_are_not_those_of_the_records_make_a_report_stale(
    tmp_path: Path, quick_plots: None
) -> None:
    specs = [{"name": "x", "params": {"width": width}} for width in (8, 16)]
    made = [
        record("em", f"x[width={spec['params']['width']}]", 0.5, defense_spec=spec)
        for spec in specs
    ]
    made.append(record("em", "x", 0.6, defense_spec={"name": "x", "params": {"width": 4}}))
    assert is_rewritten(summarized(made), tmp_path)
    assert is_rewritten(summarized(made, mixed=True), tmp_path)  # now it is x (width=4)
    assert "x (width=4)" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    presets = summarized(made, mixed=True, without_presets=["em"])
    assert [is_rewritten(presets, tmp_path) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"digest": "x"}', '{"digest": "x", "files": {"a": null}}']
)
def test_a_damaged_state_file_means_not_current(content: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(content)
    assert not is_current("x", tmp_path)


def test_a_state_file_cannot_remove_what_lies_elsewhere(tmp_path: Path, quick_plots: None) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"digest": "x", "files": {"../keep.txt": 4}}))
    write_report(summarized([record("em", "none", 0.1, curve=())]), folder, "t")
    assert (tmp_path / "keep.txt").exists()
    assert not (folder / "curves.png").exists()  # no record holds a curve


def test_asking_whether_a_report_is_current_loads_no_pandas_or_matplotlib() -> None:
    code = (
        "import sys; from pathlib import Path; from benchmark.report.write import is_current;"
        "is_current('x', Path('.'));"
        "print([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_records_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records to report; run a suite first"):
        write_report(summarized([]), tmp_path, "t")
    with pytest.raises(ValueError, match="no records to report"):
        print_leaderboard(summarized([]), Console(file=io.StringIO()))


@pytest.mark.parametrize(
    "made",
    [
        [record("none", "none", 0.9)],
        [record("em", "soft", 0.5)],
        [record("em", "soft", None)],
        [record("none", "soft", 0.9), record("none", "none", math.nan)],
        [record("em", f"defense number {i}", i / 20, curve=(0.1,)) for i in range(20)],
    ],
    ids=[
        "clean and undefended only",
        "one cell",
        "one failed cell",
        "clean only, one NaN",
        "twenty defenses, one epoch",
    ],
)
def test_small_and_odd_tables_are_reported(
    made: list[Record], tmp_path: Path, quick_plots: None
) -> None:
    table = summarized(made)
    write_report(table, tmp_path, "t")
    assert (
        Page((tmp_path / "leaderboard.html").read_text(encoding="utf-8")).rows[0] == len(made) + 1
    )
    print_leaderboard(table, Console(file=io.StringIO()))


def test_the_summary_names_the_leader_and_the_anchors() -> None:
    section = sections(summarized(records()))[0]
    assert section.summary == (
        "Best mean over 2 attacks: slow, 71.0 %; undefended 21.0 %; "
        "undefended on clean data 91.0 %."
    )
    assert section.seeds == (
        "1 to 2 seeds a cell, which share poisons and purified sets: "
        "mean ± standard deviation over seeds where there are two or more"
    )
    assert sections(summarized([record("em", "soft", 0.5)]))[0].seeds == "one seed: no interval"
    assert "partial: no rank; lacks lsp[a=1] (absent)" in section.notes
    assert section.failures[0].where == "em + broken, seed 0"


def printed(width: int | None, terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_leaderboard(summarized(records()), console)
    return file.getvalue()


def test_a_wide_terminal_shows_every_column() -> None:
    text = printed(160)
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("rank"))
    assert head.split() == [
        "rank",
        "defense",
        "mean",
        "n",
        "worst",
        "clean",
        "price",
        "cost",
        "coverage",
        "clean",
        "data",
        "em",
        "lsp[a=1]",
    ]
    slow = next(line for line in lines if " slow " in line)
    expected = "1 slow 71.0 ± 1.4 2 66.0 (lsp[a=1]) 5.0 1.50× 2/2 86.0 ± 1.4 76.0 ± 1.4 66.0 ± 1.4"
    assert slow.split() == expected.split()
    assert "left out" not in text
    assert "failed: em + broken, seed 0: FloatingPointError: the loss is nan in epoch 3" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_narrow_terminal_drops_columns_and_cuts_no_number(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert f"left out, since the terminal is {width} columns wide" in " ".join(text.split())
    assert "71.0 ± 1.4" in text or width == 20
    assert "…" not in text


def test_a_file_gets_every_column_whatever_its_width() -> None:
    text = printed(40, terminal=False)
    assert "left out" not in text
    assert "terminal" not in text
    assert "lsp[a=1]" in next(line for line in text.splitlines() if "rank" in line)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_leaderboard(summarized(records()), Console(file=file, width=200))
    assert b"71.0 +- 1.4" in raw.getvalue()
    assert b"1.50x" in raw.getvalue()


def test_the_best_ranked_value_of_a_column_is_bold() -> None:
    file = io.StringIO()
    print_leaderboard(
        summarized(records()),
        Console(file=file, width=200, force_terminal=True, color_system="standard"),
    )
    slow = next(line for line in file.getvalue().splitlines() if " slow " in line)
    assert "\x1b[1m71.0 ± 1.4\x1b[0m" in slow


def doubtful() -> list[Record]:
    """Return records of which the purifier ``far`` is in doubt under ``em``, and no other."""
    made = [
        record(attack, name, acc, facts={"data": TEN}, train_acc=0.9)
        for attack, accs in (("none", (0.8, 0.7, 0.75)), ("em", (0.2, 0.6, 0.5)))
        for name, acc in zip(("none", "far", "soft"), accs, strict=True)
    ]
    facts = {"data": TEN, "purify": {"psnr_mean": 9.0}}
    return [
        replace(one, facts=facts) if (one.attack, one.defense) == ("em", "far") else one
        for one in made
    ]


WHY = "far keeps little of its images, whose PSNR to the input is below 18 dB: em (9.0 dB)."


def test_a_number_in_doubt_is_marked_and_explained_in_the_terminal() -> None:
    file = io.StringIO()
    print_leaderboard(summarized(doubtful()), Console(file=file, width=200))
    lines = file.getvalue().splitlines()
    assert f"! {WHY} Set it to change less, or fit it for longer." in lines
    assert ["1", "far", "60.0!", "60.0!", "(em)", "10.0", "1.00×", "70.0", "60.0!"] in map(
        str.split, lines
    )
    assert ["2", "soft", "50.0", "50.0", "(em)", "5.0", "1.00×", "75.0", "50.0"] in map(
        str.split, lines
    )


def test_a_number_in_doubt_is_marked_and_explained_in_the_report(
    tmp_path: Path, quick_plots: None
) -> None:
    write_report(summarized(doubtful()), tmp_path, "t")
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert f"Numbers with a `!` mean nothing:\n\n- {WHY}" in markdown
    rows = [line.split() for line in markdown.splitlines() if line.startswith("| ")]
    assert ["|", "far", "|", "70.0", "|", "60.0!", "|"] in rows
    assert [
        "|",
        "1",
        "|",
        "far",
        "|",
        "60.0!",
        "|",
        "1",
        "|",
        "60.0!",
        "(em)",
        "|",
        "70.0",
        "|",
        "10.0",
        "|",
        "1.00×",
        "|",
        "1/1",
        "|",
    ] in rows
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert f"<li>{WHY} Set it" in html
    mark = f'<abbr class="doubt" aria-label="in doubt" title="{WHY}">!</abbr>'
    # in the ranking: mean and worst; in its cells; in the table; in the tile of the best mean
    assert html.count(f"60.0{mark}") == 5
    assert html.count(mark) == 5
    table = (tmp_path / "table-attacks.md").read_text(encoding="utf-8")
    assert "**60.0!**" in table
    assert f"- Exclamation mark: the number means nothing. {WHY}" in table


def test_where_clean_data_teach_nothing_there_is_no_rank_and_no_upper_bound(
    tmp_path: Path, quick_plots: None
) -> None:
    made = [
        record(attack, name, acc, facts={"data": TEN}, train_acc=0.9)
        for attack, accs in (("none", (0.1, 0.11)), ("em", (0.1, 0.12)), ("lsp", (0.1, 0.13)))
        for name, acc in zip(("none", "soft"), accs, strict=True)
    ]
    write_report(summarized(made), tmp_path, "t")
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "the upper bound" not in html
    assert "near chance, so no upper bound" in html
    for claim in ("best mean over attacks", " data-ranked>", "On the front"):
        assert claim not in html
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "No defense is ranked over 2 attacks, since clean accuracy is near chance" in markdown
    rows = [line.split() for line in markdown.splitlines() if line.startswith("| ")]
    assert any(row[:6] == ["|", "-", "|", "soft", "|", "12.5!"] for row in rows)
    table = (tmp_path / "table-attacks.md").read_text(encoding="utf-8")
    assert "13.0!" in table
    assert "**" not in table
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=True, color_system="standard")
    print_leaderboard(summarized(made), console)
    text = file.getvalue()
    assert "! Undefended accuracy on clean data is 10.0 %, near chance (10.0 %)" in text
    assert "\x1b[1m12.5" not in text


def test_number_formats() -> None:
    assert [percent(0.7414), percent(0.5, 0.0123), percent(math.nan)] == ["74.1", "50.0 ± 1.2", "-"]
    assert [number(-0.04), number(2.25), number(math.nan)] == ["0.0", "2.2", "-"]
    assert [times(1.0), times(3.94), times(123.4), times(math.nan)] == [
        "1.00×",
        "3.9×",
        "123×",
        "-",
    ]


def test_cell_texts_have_enough_contrast() -> None:
    def luminance(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
            for value in values
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for share in (i / 2000 for i in range(2001)):
        low, high = sorted(luminance(colour) for colour in shade(share))
        assert (high + 0.05) / (low + 0.05) >= 4.5, share
        assert luminance(shade(share)[0]) >= luminance(shade(share + 0.05)[0])


def test_labels_at_line_ends_do_not_overlap() -> None:
    made = [record("em", f"d{i}", 0.98 + 0.001 * i) for i in range(12)]
    figure = curves.draw_curves(sections(summarized(made))[0])
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    gaps = [above - below for below, above in itertools.pairwise(heights)]
    assert min(gaps) > 5
    assert heights[-1] <= 100
