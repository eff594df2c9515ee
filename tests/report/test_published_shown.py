"""Published numbers on the page, in the tables and in the command report."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.analysis.counterparts import find_counterparts
from benchmark.report.figures import draw
from benchmark.report.page import page as html
from benchmark.report.published import published_tables
from benchmark.report.published_cells import difference
from benchmark.report.sections import sections
from benchmark.report.tables import paper_tables
from benchmark.report.typeset import FORMS, PaperTable, table_latex
from benchmark.report.write import remembered, write_report
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.command_line import Call
from support.published_numbers import ROWS, measured, only, published, records
from support.reports import summarized

GOLDEN = Path(__file__).parents[1] / "golden"


def laid_beside() -> tuple[PaperTable, ...]:
    """Return the published numbers' own table, and attacks by defenses with published numbers.

    The records have two seeds and a failed cell; the source prints a cell twice.
    """
    table = summarized(
        [*records(), *measured("rem", "jpeg", 0.6, 0.62), *measured("rem", "none", 0.2, 0.22)]
    )
    longer = published("rem", "none", 0.3, epochs=120)
    counterparts = find_counterparts(
        table, [longer if row.attack == "rem" else row for row in ROWS], "src2020"
    )
    return *published_tables(counterparts), paper_tables(
        table, {"em": "linf", "rem": "linf"}, counterparts
    )[-1]


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("index", [0, 1])
def test_the_tables_equal_the_golden_files(index: int, ending: str) -> None:
    """The golden files show tables with published numbers.

    ``UEBENCH_REGENERATE=1 pytest tests/report/test_published_shown.py`` writes them anew. Look at
    the difference before committing it.
    """
    table = laid_beside()[index]
    file, text = GOLDEN / f"table-{table.name}.{ending}", FORMS[ending](table)
    if os.environ.get("UEBENCH_REGENERATE") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_their_latex_compiles(compile_latex: Callable[[str], bytes]) -> None:
    assert compile_latex("\n\\clearpage\n".join(map(table_latex, laid_beside()))).startswith(
        b"%PDF"
    )


def test_the_tables_of_a_paper_stand_again_with_published_numbers_and_means_of_ours() -> None:
    made = [
        *measured("em", "none", 0.1),
        *measured("em", "jpeg", 0.75),
        *measured("em", "none", 0.1, victim="big"),
    ]
    made += [*measured("em", "none", 0.3, ratio=0.5), *measured("em", "none", 0.4, ratio=0.25)]
    table = summarized([*made, *measured("tap", "none", 0.2), *measured("tap", "jpeg", 0.7)])
    rows = [*ROWS, published("em", "none", 0.11, dataset="other")]
    counterparts = [
        *find_counterparts(table, rows, "src2020"),
        *find_counterparts(table, rows, "src2020[dataset=other]"),
    ]
    tables = {one.name: one for one in paper_tables(table, {}, counterparts)}
    plain = [one.name for one in paper_tables(table, {})]
    assert [name for name in tables if name not in plain] == [
        *(f"attacks{number}-src2020-toy" for number in ("", "-2", "-3", "-4")),
        *("victims-src2020-toy", "ratios-src2020-toy"),
        *(f"attacks{number}-src2020-other" for number in ("", "-2", "-3", "-4")),
        *("victims-src2020-other", "ratios-src2020-other"),
    ]
    shown = {
        (label, entry.text, entry.mark)
        for block in tables["attacks-4-src2020-toy"].blocks
        for label, row in block.lines
        for entry in row
    }
    ours = {
        (label, entry.text, entry.mark)
        for block in tables["attacks-4"].blocks
        for label, row in block.lines
        for entry in row
    }
    assert ours <= shown
    assert {label for label, _, _ in shown - ours} == {"em: published", "em: difference"}
    assert {mark for _, _, mark in shown - ours} == {""}
    ratios = {
        label: [entry.text for entry in row]
        for block in tables["ratios-src2020-toy"].blocks
        for label, row in block.lines
    }
    assert ratios["none: published"] == ["20.00 ± 1.00", "50.00", "20.00 ± 1.00"]
    assert ratios["none: not the same"] == ["d", "", ""]
    assert (
        "Not the same (d): poison ratio: published 1, ours 0.25."
        in tables["ratios-src2020-toy"].notes
    )


def test_the_page_and_the_texts_show_them_in_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("heatmap", "curves"):
        monkeypatch.setattr(
            f"benchmark.report.figures.{name}.{name}", lambda section: {"png": b"-"}
        )
    monkeypatch.setattr(draw, "figures", lambda table, sections: ({}, []))
    table = summarized(records())
    counterparts = find_counterparts(table, ROWS, "src2020")
    write_report(table, tmp_path, "t", counterparts=counterparts, sources=["src2020"])
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert page.count('<span class="published"') == len(only(counterparts).pairs)
    assert "Published by src2020: 20.00 ± 1.00 %, ours −9.0 points." in page
    assert "Published by src2020: 90.00 %." in page  # our cell failed: there is no difference
    assert "src2020</b>, 5 numbers for toy. Order of all cells of attack and defense" in page
    assert "### Published numbers beside ours" in (tmp_path / "leaderboard.md").read_text(
        encoding="utf-8"
    )
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()))
    shown = {
        (row["attack"], row["defense"]): (
            row["src2020 published mean"],
            row["src2020 difference in points"],
        )
        for row in rows
    }
    assert shown["em", "jpeg"] == ("0.800000", "-5.0000")
    assert shown["em", "none"] == ("0.200000", "-9.0000")
    assert shown["em", "jpeg[quality=30]"] == ("", "")
    assert remembered(tmp_path) == (("src2020",), False)
    write_report(table, tmp_path, "t")
    assert (
        "published"
        not in (tmp_path / "leaderboard.html").read_text(encoding="utf-8").partition("</style>")[2]
    )


def test_what_is_noted_on_published_numbers_stands_wherever_they_do() -> None:
    table = summarized(measured("em", "none", 0.1))
    noted = "Table 1; 40k images; victim not printed (a default)"
    counterparts = find_counterparts(
        table, [published("em", "none", 0.2, notes=noted, victim="big")], "src2020"
    )
    said = f"On the published numbers: {noted}."
    assert said in published_tables(counterparts)[0].notes
    assert said in paper_tables(table, {}, counterparts)[-1].notes
    assert f"<p>{said}</p>" in html(table, sections(table), "t", {}, [{}], {}, counterparts)
    assert only(counterparts).differences == (
        "victim: published big (victim not printed (a default)), ours net",
    )


def test_a_difference_has_no_negative_zero_and_none_stands_where_ours_failed() -> None:
    table = summarized([*measured("em", "none", 0.2), *measured("em", "dvae", None)])
    counterparts = find_counterparts(
        table, [published("em", "none", 0.2003), published("em", "dvae", 0.9)], "src2020"
    )
    assert [difference(pair) for pair in only(counterparts).pairs] == ["+0.0", "-"]
    text = html(table, sections(table), "t", {}, [{}], {}, counterparts)
    assert "<b>+0.0</b></span>" in text
    assert "90.00<sup>a</sup></span>" in text


def test_two_data_sets_of_a_source_are_told_apart() -> None:
    table = summarized(measured("em", "none", 0.1))
    rows = [published("em", "none", 0.2), published("em", "none", 0.3, dataset="other")]
    one = find_counterparts(table, rows, "src2020")
    assert "as published by src2020 and" in published_tables(one)[0].caption
    both = [*one, *find_counterparts(table, rows, "src2020[dataset=other]")]
    text = html(table, sections(table), "t", {}, [{}], {}, both)
    for name, printed in (("src2020 (toy)", "20.00"), ("src2020 (other)", "30.00")):
        assert any(f"as published by {name} and" in made.caption for made in published_tables(both))
        assert f'title="{name} published {printed} %' in text
        assert f"Published by {name}: {printed} %" in text


def test_the_note_on_numbers_printed_twice_names_files_of_any_group() -> None:
    table = summarized([*records(), *measured("em", "none", 0.1, victim="big")])
    for one in paper_tables(table, {}, find_counterparts(table, ROWS, "src2020")):
        if "src2020" in one.name:
            assert "the tables of published numbers (table-published-…) have all" in " ".join(
                one.notes
            )


def test_several_tables_of_a_source_have_names_of_their_own() -> None:
    made = [*measured("em", "none", 0.1), *measured("em", "none", 0.1, victim="big")]
    assert [
        table.name
        for table in published_tables(find_counterparts(summarized(made), ROWS, "src2020"))
    ] == [
        "published-src2020",
        "published-src2020-2",
    ]


def test_report_lays_published_numbers_beside_ours(call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / "results" / "store")
    for index, one in enumerate(records()):
        if one.status == "ok":
            store.publish_record(
                Record(**{**vars(one), "key": f"{index:064x}", "dataset_spec": {"name": "cifar10"}})
            )
    result = call("report", "--all", "--published", "iss2023")
    assert result.code == 0, result.err
    assert "iss2023 beside toy, 3 numbers." in result.out
    text = (tmp_path / "results" / "all" / "table-published-iss2023.md").read_text(encoding="utf-8")
    assert "94.68" in text
    assert "victim: published resnet18, ours net" in text
    page = tmp_path / "results" / "all" / "leaderboard.html"
    once = call(
        "report",
        "--all",
        "--published",
        "iss2023",
        "--published",
        "iss2023[dataset=cifar10]",
        "--published",
        "iss2023",
    )
    assert once.out.count("iss2023 beside toy") == 1
    assert remembered(page.parent) == (("iss2023", "iss2023[dataset=cifar10]"), False)
    assert call("report", "--all", "--published", "iss2023").code == 0
    again = call("report", "--all")  # the command remembers what an earlier call asked for
    assert again.code == 0
    assert "iss2023 beside toy, 3 numbers." in again.out
    assert (
        "published numbers are shown since an earlier report was asked for them; "
        "--published none leaves them out" in again.out
    )
    assert "Published by iss2023" in page.read_text(encoding="utf-8")
    wrong = call("report", "--all", "--published", "iss2032")
    assert wrong.code == 2
    assert 'did you mean "iss2023"?' in wrong.err
    without = call("report", "--all", "--published", "none")
    assert without.code == 0
    for _ in range(2):  # and it remembers that too
        assert not list((tmp_path / "results" / "all").glob("table-*iss2023*"))
        assert "iss2023" not in page.read_text(encoding="utf-8")
        assert "iss2023" not in call("report", "--all").out


def test_a_remembered_source_without_counterparts_hinders_no_report(
    call: Call, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results" / "store")
    (one,) = measured("em", "none", 0.1, dataset_spec={"name": "mine"})
    store.publish_record(Record(**{**vars(one), "key": f"{0:064x}"}))
    folder = tmp_path / "results" / "all"
    folder.mkdir()
    (folder / "report.json").write_text('{"digest": "", "files": {}, "published": ["iss2023"]}')
    result = call("report", "--all")
    assert result.code == 0
    assert "published numbers are left out: nothing here has a counterpart in iss2023" in result.err
    assert remembered(folder) == (("iss2023",), False)  # until there are counterparts again


@pytest.mark.parametrize(
    "error", [ValueError("p.csv: the columns are a, b"), FileNotFoundError("p.csv does not exist")]
)
def test_a_damaged_or_missing_file_hinders_a_report_only_if_it_was_asked_for_now(
    error: Exception, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise error

    (one,) = measured("em", "none", 0.1)
    Store(tmp_path / "results" / "store").publish_record(
        Record(**{**vars(one), "key": f"{0:064x}"})
    )
    folder = tmp_path / "results" / "all"
    folder.mkdir()
    (folder / "report.json").write_text('{"digest": "", "files": {}, "published": ["iss2023"]}')
    monkeypatch.setattr("benchmark.analysis.published.load_published", broken)
    result = call("report", "--all")
    assert result.code == 0
    assert f"published numbers are left out: {error}" in result.err
    assert call("report", "--all", "--published", "iss2023").code == 2
