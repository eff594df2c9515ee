"""Published numbers: the shipped file, its reading, and what stands beside measured numbers."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from test_report import record

from benchmark.beside import Beside, beside
from benchmark.published import ATTACKS, COLUMNS, DEFENSES, FILE, Published, load_published
from benchmark.record import Record
from benchmark.registry import Registry
from benchmark.report.published import agreement, published_tables
from benchmark.report.typeset import FORMS
from benchmark.results import to_table
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
        "attack_spec": {"name": "em", "params": {"granularity": "sample", "eps": 4 / 255, "max_rounds": 3}},
        "defense_spec": {"name": "dvae", "params": {"width": 16, "lr": 0.005}},
    }
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    rows = [published("em", "dvae", 0.9, epochs=None), published("em", "dvae", 0.5, victim="rare")]
    rows.append(published("em", "none", 0.3))  # so that "net" is the victim with the most numbers
    found = only(beside(to_table([record("em", "dvae", 0.5, **other)]), rows, "src2020[dataset=toy]", cards))
    assert [pair.published.victim for pair in found.pairs] == ["net"]
    assert found.pairs[0].differs == ("data set", "victim", "epochs", "poison ratio", "budget", "attack", "defense")
    default = registry.card("attack", "em").params["max_rounds"].shown
    assert found.differences == (
        "data set: published toy, ours mine, 100 training images a class",
        "victim: published net, ours small",
        "epochs: published not printed, ours 4",
        "poison ratio: published 1, ours 0.8",
        f"attack em: ours has max_rounds=3 (default {default})",
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


@pytest.mark.parametrize("ending", FORMS)
def test_the_table_equals_the_golden_file(ending: str) -> None:
    """``UEBENCH_REGENERATE=1 pytest tests/test_published.py`` writes it anew; look at the difference before committing it."""
    (table,) = published_tables(beside(to_table(records()), ROWS, "src2020"))
    file, text = GOLDEN / f"table-{table.name}.{ending}", FORMS[ending](table)
    if os.environ.get("UEBENCH_REGENERATE") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


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
    again = call("report", "--all")  # another report: the table is gone
    assert again.code == 0
    assert not (tmp_path / "results" / "all" / "table-published-iss2023.md").exists()
    wrong = call("report", "--all", "--published", "iss2032")
    assert wrong.code == 2
    assert 'did you mean "iss2023"?' in wrong.err
