"""Published numbers: the shipped file, its reading, and what stands beside measured numbers."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from test_report import record

from benchmark.beside import Beside, beside
from benchmark.published import ATTACKS, COLUMNS, DEFENSES, FILE, Published, load_published
from benchmark.record import Record
from benchmark.registry import Registry
from benchmark.report import figures, plots, remembered, write_report
from benchmark.report.counterparts import difference
from benchmark.report.page import page as html
from benchmark.report.published import agreement, published_tables
from benchmark.report.tables import paper_tables
from benchmark.report.typeset import FORMS, PaperTable, latex
from benchmark.report.view import sections
from benchmark.results import shown_value, to_table
from benchmark.spec import parse_spec
from benchmark.store import Store

GOLDEN = Path(__file__).parent / "golden"


# The file


def test_the_shipped_file_is_whole_and_its_sources_are_described() -> None:
    rows = load_published()
    assert len(rows) == 1274
    page = FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert {row.source for row in rows} == set(re.findall(r"^## (\w+\d{4}\w*)$", page, re.M))
    first = rows[0]
    assert (first.source, first.mean, first.std, first.epochs, first.ratio) == ("bridgepure2025", 0.9401, 0.0015, 120, 0.0)
    assert any(math.isnan(row.std) for row in rows)
    assert any(row.epochs is None for row in rows)


LINE = dict(zip(COLUMNS, ["src2020", "toy", "net", "em", "linf", "8/255", "1.0", "none", "20.5", "0.5", "60", "Table 1"], strict=True))


def write(file: Path, **changes: str) -> Path:
    row = {**LINE, **changes}
    file.write_text(f"{','.join(COLUMNS)}\n{','.join(row[name] for name in COLUMNS)}\n", encoding="utf-8")
    return file


def test_a_line_is_read(tmp_path: Path) -> None:
    (row,) = load_published(write(tmp_path / "p.csv"))
    assert row == Published("src2020", "toy", "net", "em", "linf", "8/255", 1.0, "none", 0.205, 0.005, 60, "Table 1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy_mean": "941"}, r'p.csv, line 2: accuracy_mean is "941", expected a number from 0 to 100'),
        ({"accuracy_mean": ""}, 'accuracy_mean is ""'),
        ({"accuracy_std": "-1"}, 'accuracy_std is "-1"'),
        ({"poison_ratio": "nan"}, 'poison_ratio is "nan", expected a number from 0 to 1'),
        ({"poison_ratio": "0"}, "attack em with poison_ratio 0; expected ratio 0 for none and only for it"),
        ({"attack": "none"}, "attack none with poison_ratio 1"),
        ({"epochs": "1e2"}, 'epochs is "1e2", expected a positive number or nothing'),
        ({"source_key": "../x"}, r'source_key is "\.\./x", expected lower-case letters'),
        ({"notes": "a,b"}, "13 values, expected 12"),
    ],
)
def test_a_wrong_line_is_named(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_published(write(tmp_path / "p.csv", **changes))


def test_a_wrong_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"the columns are a, b; expected source_key, dataset"):
        load_published(tmp_path / "p.csv")
    with pytest.raises(FileNotFoundError, match="comes with the source code"):
        load_published(tmp_path / "absent.csv")


@pytest.mark.parametrize(("kind", "names"), [("attack", ATTACKS), ("defense", DEFENSES)])
def test_identifiers_stand_for_methods_that_there_are(kind: str, names: dict[str, str], registry: Registry) -> None:
    for text in names.values():
        for part in parse_spec(text).parts():
            assert registry.card(kind, part.name).unknown(part.params) == [], text
    known = {row.attack if kind == "attack" else row.defense for row in load_published()}
    assert set(names) - known == set()
    unmapped = {name for name in known & set(registry.cards(kind)) if name not in names}
    assert unmapped <= {"jpeg"}, "add them to the table of benchmark/published.py, with the parameters that say which setting is meant"


# Beside measured numbers


def published(attack: str, defense: str, acc: float, **values: Any) -> Published:
    fields: dict[str, Any] = {
        "source": "src2020",
        "dataset": "toy",
        "victim": "net",
        "attack": attack,
        "norm": "linf",
        "budget": "8/255",
        "ratio": 0.0 if attack == "none" else 1.0,
        "defense": defense,
        "mean": acc,
        "std": math.nan,
        "epochs": 60,
        "notes": "",
    }
    return Published(**fields | values)


ROWS = [
    published("none", "none", 0.95),
    published("em", "none", 0.2, std=0.01),
    published("em", "none", 0.22, notes="Table 9; other images"),
    published("em", "jpeg10", 0.8),
    published("em_classwise", "jpeg10", 0.7),
    published("em", "dvae", 0.9),
    published("em", "at", 0.85),
    published("rem", "none", 0.3),
    published("em", "none", 0.5, ratio=0.5),
    published("em", "none", 0.6, victim="big"),
]


def measured(attack: str, defense: str, *accs: float | None, **values: Any) -> list[Record]:
    specs = {
        "dataset_spec": {"name": "toy"},
        "attack_spec": {"name": "em", "params": {"granularity": "sample", "eps": 8 / 255}} if attack == "em" else {"name": attack},
        "defense_spec": {
            "none": {"name": "none"},
            "jpeg": {"name": "jpeg", "params": {"quality": 10, "test": False}},
            "jpeg[quality=30]": {"name": "jpeg", "params": {"quality": 30, "test": False}},
            "dvae": {"name": "dvae", "params": {"width": 64}},
        }.get(defense, {}),
        "protocol_spec": {"epochs": 60},
    }
    return [record(attack, defense, acc, seed=seed, **(specs | values)) for seed, acc in enumerate(accs)]


def records() -> list[Record]:
    made = [*measured("none", "none", 0.9), *measured("em", "none", 0.1, 0.12), *measured("em", "jpeg", 0.75)]
    return [*made, *measured("em", "jpeg[quality=30]", 0.4), *measured("em", "dvae", None)]


def only(besides: list[Beside]) -> Beside:
    assert len(besides) == 1
    return besides[0]


def test_pairs_are_of_the_same_methods_and_nothing_is_averaged() -> None:
    found = only(beside(to_table(records()), ROWS, "src2020"))
    pairs = [(pair.attack, pair.defense, pair.published.mean, pair.n, pair.failed) for pair in found.pairs]
    assert pairs == [
        ("none", "none", 0.95, 1, 0),
        ("em", "none", 0.2, 2, 0),
        ("em", "none", 0.22, 2, 0),  # printed twice: stands twice
        ("em", "dvae", 0.9, 0, 1),
        ("em", "jpeg", 0.8, 1, 0),  # quality 10, and not 30
    ]
    assert found.pairs[1].mean == pytest.approx(0.11)
    assert found.differences == ()
    assert {pair.differs for pair in found.pairs} == {()}


def test_differences_of_protocol_are_told_in_words(registry: Registry) -> None:
    other: dict[str, Any] = {
        "victim": "small",
        "ratio": 0.8,
        "protocol_spec": {"epochs": 4},
        "dataset": "mine",
        "dataset_spec": {"name": "folder", "train_per_class": 100},
        "attack_spec": {"name": "em", "params": {"granularity": "sample", "eps": 4 / 255, "max_rounds": 3, "step": 10 / 255}},
        "defense_spec": {"name": "dvae", "params": {"width": 16, "lr": 0.005}},
    }
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    rows = [published("em", "dvae", 0.9, epochs=None), published("em", "dvae", 0.5, victim="rare")]
    rows.append(published("em", "none", 0.3))  # so that "net" is the victim with the most numbers
    found = only(beside(to_table([record("em", "dvae", 0.5, **other)]), rows, "src2020[dataset=toy]", cards))
    assert [pair.published.victim for pair in found.pairs] == ["net"]
    assert found.pairs[0].differs == ("data set", "victim", "epochs", "poison ratio", "budget", "attack", "defense")
    rounds, step = (shown_value(registry.card("attack", "em").params[name].default) for name in ("max_rounds", "step"))
    assert "/255" in step
    assert found.differences == (
        "data set: published toy, ours mine, 100 training images a class",
        "victim: published net, ours small",
        "epochs: published not printed, ours 4",
        "poison ratio: published 1, ours 0.8",
        f"attack em: ours has max_rounds=3 (default {rounds}), step=10/255 (default {step})",
        "defense dvae: ours has width=16 (default 64)",
        "budget of em: published 8/255, ours 4/255",
    )


def test_our_victim_and_ratio_are_taken_where_the_source_has_them() -> None:
    big = only(beside(to_table(measured("em", "none", 0.1, victim="big")), ROWS, "src2020"))
    assert [pair.published.mean for pair in big.pairs] == [0.6]
    half = only(beside(to_table(measured("em", "none", 0.1, ratio=0.5)), ROWS, "src2020"))
    assert [(pair.published.mean, pair.differs) for pair in half.pairs] == [(0.5, ())]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("src2002", 'unknown source "src2002" of published results; did you mean "src2020"?'),
        ("src2020[dataset=tyo]", 'src2020 has no data set "tyo"; did you mean "toy"?'),
        ("src2020[victim=net]", r"expected src2020, or src2020\[dataset=NAME\] with one of toy"),
    ],
)
def test_an_unknown_source_is_told_what_there_is(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beside(to_table(records()), ROWS, wanted)


def test_nothing_in_common_is_an_error_that_says_what_to_do() -> None:
    table = to_table(measured("em", "none", 0.1, dataset_spec={"name": "folder"}))
    with pytest.raises(ValueError, match=r"has the data sets toy and the attacks em, em_classwise, none, rem; src2020\[dataset=NAME\]"):
        beside(table, ROWS, "src2020")


def order(defenses: tuple[str, ...], attacks: int, ours: dict[str, float], theirs: dict[str, float]) -> Beside:
    """The same accuracies on every attack; attacks are one method whose identifiers the source has."""
    names = ["em", "rem", "sem", "tap", "ntga"][:attacks]
    specs = {"jpeg10": ("jpeg", {"quality": 10, "test": False}), "bdr2": ("bdr", {"bits": 2, "test": False}), "dvae": ("dvae", {})}
    params = {"em": {"granularity": "sample"}, "tap": {"targeted": True}}
    made, rows = [], []
    for attack in names:
        for name in defenses:
            method, settings = specs[name]
            spec: dict[str, Any] = {
                "attack_spec": {"name": attack, "params": params.get(attack, {})},
                "defense_spec": {"name": method, "params": settings},
            }
            made.append(record(attack, method, ours[name], dataset_spec={"name": "toy"}, **spec))
            rows.append(published(attack, name, theirs[name]))
    return only(beside(to_table(made), rows, "src2020"))


def test_agreement_of_orders() -> None:
    ours = {"jpeg10": 0.5, "bdr2": 0.4, "dvae": 0.3}
    same = order(("jpeg10", "bdr2", "dvae"), 5, ours, {"jpeg10": 0.9, "bdr2": 0.8, "dvae": 0.7})
    assert (same.within.value, same.within.interval, same.over.value, same.over.interval) == (1, (1, 1), 1, (1, 1))
    swapped = order(("jpeg10", "bdr2", "dvae"), 4, ours, {"jpeg10": 0.8, "bdr2": 0.9, "dvae": 0.7})
    assert swapped.within.value == pytest.approx(1 / 3)
    assert swapped.within.interval is None
    assert agreement(swapped)[0] == (
        "Order of the defenses within an attack: Kendall's τ-b 0.33 without an interval (fewer than 5 attacks give no interval), "
        "over 4 attacks and 3 defenses."
    )
    few = order(("jpeg10", "bdr2"), 5, ours, ours)
    assert "no rank agreement can be given, since no attack has 3 defenses in both" in agreement(few)[0]


def laid_beside() -> tuple[PaperTable, ...]:
    """The table of its own and the attacks by defenses, with two seeds and a failed cell, and a source that prints a cell twice."""
    table = to_table([*records(), *measured("rem", "jpeg", 0.6, 0.62), *measured("rem", "none", 0.2, 0.22)])
    longer = published("rem", "none", 0.3, epochs=120)
    besides = beside(table, [longer if row.attack == "rem" else row for row in ROWS], "src2020")
    return *published_tables(besides), paper_tables(table, {"em": "linf", "rem": "linf"}, besides)[-1]


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("index", [0, 1])
def test_the_tables_equal_the_golden_files(index: int, ending: str) -> None:
    """``UEBENCH_REGENERATE=1 pytest tests/test_published.py`` writes them anew; look at the difference before committing it."""
    table = laid_beside()[index]
    file, text = GOLDEN / f"table-{table.name}.{ending}", FORMS[ending](table)
    if os.environ.get("UEBENCH_REGENERATE") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_their_latex_compiles(compile_latex: Callable[[str], bytes]) -> None:
    assert compile_latex("\n\\clearpage\n".join(map(latex, laid_beside()))).startswith(b"%PDF")


def test_the_tables_of_a_paper_stand_once_more_with_published_numbers_and_their_means_are_ours() -> None:
    made = [*measured("em", "none", 0.1), *measured("em", "jpeg", 0.75), *measured("em", "none", 0.1, victim="big")]
    made += [*measured("em", "none", 0.3, ratio=0.5), *measured("em", "none", 0.4, ratio=0.25)]
    table = to_table([*made, *measured("tap", "none", 0.2), *measured("tap", "jpeg", 0.7)])
    rows = [*ROWS, published("em", "none", 0.11, dataset="other")]
    besides = [*beside(table, rows, "src2020"), *beside(table, rows, "src2020[dataset=other]")]
    tables = {one.name: one for one in paper_tables(table, {}, besides)}
    plain = [one.name for one in paper_tables(table, {})]
    assert [name for name in tables if name not in plain] == [
        *(f"attacks{number}-src2020-toy" for number in ("", "-2", "-3", "-4")),
        *("victims-src2020-toy", "ratios-src2020-toy"),
        *(f"attacks{number}-src2020-other" for number in ("", "-2", "-3", "-4")),
        *("victims-src2020-other", "ratios-src2020-other"),
    ]
    shown = {
        (label, entry.text, entry.mark) for block in tables["attacks-4-src2020-toy"].blocks for label, row in block.lines for entry in row
    }
    ours = {(label, entry.text, entry.mark) for block in tables["attacks-4"].blocks for label, row in block.lines for entry in row}
    assert ours <= shown
    assert {label for label, _, _ in shown - ours} == {"em: published", "em: difference"}
    assert {mark for _, _, mark in shown - ours} == {""}
    ratios = {label: [entry.text for entry in row] for block in tables["ratios-src2020-toy"].blocks for label, row in block.lines}
    assert ratios["none: published"] == ["20.00 ± 1.00", "50.00", "20.00 ± 1.00"]
    assert ratios["none: not the same"] == ["d", "", ""]
    assert "Not the same (d): poison ratio: published 1, ours 0.25." in tables["ratios-src2020-toy"].notes


def test_the_page_and_the_texts_show_them_in_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("heatmap", "curves"):
        monkeypatch.setattr(plots, name, lambda section: {"png": b"-"})
    monkeypatch.setattr(figures, "figures", lambda table, sections: ({}, []))
    table = to_table(records())
    besides = beside(table, ROWS, "src2020")
    write_report(table, tmp_path, "t", besides=besides, sources=["src2020"])
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert page.count('<span class="published"') == len(only(besides).pairs)
    assert "Published by src2020: 20.00 ± 1.00 %, ours −9.0 points." in page
    assert "Published by src2020: 90.00 %." in page  # ours failed: there is no difference
    assert "src2020</b>, 5 numbers for toy. Order of the defenses within an attack" in page
    assert "### Published numbers beside ours" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()))
    shown = {(row["attack"], row["defense"]): (row["src2020 published mean"], row["src2020 difference in points"]) for row in rows}
    assert shown["em", "jpeg"] == ("0.800000", "-5.0000")
    assert shown["em", "none"] == ("0.200000", "-9.0000")
    assert shown["em", "jpeg[quality=30]"] == ("", "")
    assert remembered(tmp_path) == (("src2020",), False)
    write_report(table, tmp_path, "t")
    assert "published" not in (tmp_path / "leaderboard.html").read_text(encoding="utf-8").partition("</style>")[2]


def test_what_is_noted_on_published_numbers_stands_wherever_they_do() -> None:
    table = to_table(measured("em", "none", 0.1))
    noted = "Table 1; 40k images; victim not printed (a default)"
    besides = beside(table, [published("em", "none", 0.2, notes=noted, victim="big")], "src2020")
    said = f"On the published numbers: {noted}."
    assert said in published_tables(besides)[0].notes
    assert said in paper_tables(table, {}, besides)[-1].notes
    assert f"<p>{said}</p>" in html(table, sections(table), "t", {}, [{}], {}, besides)
    assert only(besides).differences == ("victim: published big (victim not printed (a default)), ours net",)


def test_a_difference_has_no_negative_zero_and_none_stands_where_ours_failed() -> None:
    table = to_table([*measured("em", "none", 0.2), *measured("em", "dvae", None)])
    besides = beside(table, [published("em", "none", 0.2003), published("em", "dvae", 0.9)], "src2020")
    assert [difference(pair) for pair in only(besides).pairs] == ["+0.0", "-"]
    text = html(table, sections(table), "t", {}, [{}], {}, besides)
    assert "<b>+0.0</b></span>" in text
    assert "90.00<sup>a</sup></span>" in text


def test_two_data_sets_of_a_source_are_told_apart() -> None:
    table = to_table(measured("em", "none", 0.1))
    rows = [published("em", "none", 0.2), published("em", "none", 0.3, dataset="other")]
    one = beside(table, rows, "src2020")
    assert "as published by src2020 and" in published_tables(one)[0].caption
    both = [*one, *beside(table, rows, "src2020[dataset=other]")]
    text = html(table, sections(table), "t", {}, [{}], {}, both)
    for name, printed in (("src2020 (toy)", "20.00"), ("src2020 (other)", "30.00")):
        assert any(f"as published by {name} and" in made.caption for made in published_tables(both))
        assert f'title="{name} published {printed} %' in text
        assert f"Published by {name}: {printed} %" in text


def test_the_note_on_numbers_printed_twice_names_files_of_any_group() -> None:
    table = to_table([*records(), *measured("em", "none", 0.1, victim="big")])
    for one in paper_tables(table, {}, beside(table, ROWS, "src2020")):
        if "src2020" in one.name:
            assert "the tables of published numbers (table-published-…) have all" in " ".join(one.notes)


def test_several_tables_of_a_source_have_names_of_their_own() -> None:
    made = [*measured("em", "none", 0.1), *measured("em", "none", 0.1, victim="big")]
    assert [table.name for table in published_tables(beside(to_table(made), ROWS, "src2020"))] == [
        "published-src2020",
        "published-src2020-2",
    ]


def test_report_lays_published_numbers_beside_ours(call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / "results" / "store")
    for index, one in enumerate(records()):
        if one.status == "ok":
            store.publish_record(Record(**{**vars(one), "key": f"{index:064x}", "dataset_spec": {"name": "cifar10"}}))
    result = call("report", "--all", "--published", "iss2023")
    assert result.code == 0, result.err
    assert "iss2023 beside toy, 3 numbers." in result.out
    text = (tmp_path / "results" / "all" / "table-published-iss2023.md").read_text(encoding="utf-8")
    assert "94.68" in text
    assert "victim: published resnet18, ours net" in text
    page = tmp_path / "results" / "all" / "leaderboard.html"
    once = call("report", "--all", "--published", "iss2023", "--published", "iss2023[dataset=cifar10]", "--published", "iss2023")
    assert once.out.count("iss2023 beside toy") == 1
    assert remembered(page.parent) == (("iss2023", "iss2023[dataset=cifar10]"), False)
    assert call("report", "--all", "--published", "iss2023").code == 0
    again = call("report", "--all")  # which remembers what was asked for
    assert again.code == 0
    assert "iss2023 beside toy, 3 numbers." in again.out
    assert "published numbers are shown since an earlier report was asked for them; --published none leaves them out" in again.out
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


def test_a_remembered_source_without_counterparts_hinders_no_report(call: Call, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("error", [ValueError("p.csv: the columns are a, b"), FileNotFoundError("p.csv does not exist")])
def test_a_damaged_or_missing_file_hinders_a_report_only_if_it_was_asked_for_now(
    error: Exception, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise error

    (one,) = measured("em", "none", 0.1)
    Store(tmp_path / "results" / "store").publish_record(Record(**{**vars(one), "key": f"{0:064x}"}))
    folder = tmp_path / "results" / "all"
    folder.mkdir()
    (folder / "report.json").write_text('{"digest": "", "files": {}, "published": ["iss2023"]}')
    monkeypatch.setattr("benchmark.published.load_published", broken)
    result = call("report", "--all")
    assert result.code == 0
    assert f"published numbers are left out: {error}" in result.err
    assert call("report", "--all", "--published", "iss2023").code == 2
