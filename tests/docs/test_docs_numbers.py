"""The numbers in the documentation are those of the records that come with the repository."""

from __future__ import annotations

import re
from dataclasses import replace
from statistics import mean, stdev

from benchmark.analysis.baseline import read_baseline
from benchmark.analysis.counterparts import find_counterparts
from benchmark.analysis.published import load_published
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.report.published import published_tables
from benchmark.report.tables import paper_tables
from benchmark.report.typeset import table_markdown
from benchmark.running.last_run import last_selection, records_of
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.reports import summarized

DOCS = ROOT / "docs"


def baseline_records(suite: str) -> list[Record]:
    """The records that come with the repository of a suite."""
    baselines = ROOT / "results" / "baselines"
    selection = last_selection(baselines / suite)
    assert selection is not None
    return records_of(Store(baselines / "store"), selection)


def rows_below(heading: str, first: str) -> list[list[str]]:
    """The cells of those table rows of ``results.md`` that follow a heading, up to the next one, and whose first cell matches."""
    section = (
        (DOCS / "results.md")
        .read_text(encoding="utf-8")
        .partition(heading + "\n")[2]
        .partition("\n#")[0]
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    return [row for row in rows if re.fullmatch(first, row[0])]


def test_the_table_of_cifar10_lite_is_that_of_its_records() -> None:
    """The records that come with the repository still load, and the page shows them."""
    records = baseline_records("cifar10-lite")
    columns = ["none", "em", "em[granularity=class,class_share=1.0]", "lsp", "ops"]
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        found.setdefault(record.defense, {}).setdefault(record.attack, []).append(
            100 * (record.test_acc or 0)
        )
    expected = {
        defense: {attack: shown_mean(values) for attack, values in cells.items()}
        for defense, cells in found.items()
    }
    rows = rows_below("## `cifar10-lite`, CIFAR-10 (JPEG copy)", r"[\d-]+")
    assert len(records) == 65
    assert {row[1]: dict(zip(columns, row[2:7], strict=True)) for row in rows} == expected


def shown_mean(values: list[float]) -> str:
    """In points; several with their standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def test_the_sweep_of_dvae_is_that_of_its_records() -> None:
    expected: dict[str, dict[str, str]] = {}
    for record in baseline_records("dvae-sweep"):
        expected.setdefault(f"`{record.defense}`", {})[record.attack] = (
            f"{100 * (record.test_acc or 0):.1f}"
        )
    assert expected.pop("`none`")
    rows = rows_below("### What limits D-VAE at this size", "`.*`")
    assert {
        row[0]: dict(zip(("none", "em", "ops"), row[2:5], strict=True)) for row in rows
    } == expected


def test_the_table_on_the_page_of_reports_is_that_of_the_records() -> None:
    table = summarized(
        [replace(record, dataset="CIFAR-10") for record in baseline_records("cifar10-lite")]
    )
    norms = {name: card.norm for name, card in Registry().cards("attack").items()}
    (made,) = (table_markdown(one) for one in paper_tables(table, norms) if one.name == "attacks")
    assert made.partition("\n\n")[2].strip() in (DOCS / "report.md").read_text(encoding="utf-8")


def test_the_published_numbers_on_that_page_stand_beside_those_of_the_records() -> None:
    """Published, ours and their difference of the rows that the page shows."""
    table = summarized(baseline_records("cifar10-lite"))
    cards = {kind: Registry().cards(kind) for kind in ("attack", "defense")}
    (made,) = map(
        table_markdown,
        published_tables(
            find_counterparts(table, load_published(), "apbench2023[dataset=cifar10]", cards)
        ),
    )
    page = (
        (DOCS / "report.md")
        .read_text(encoding="utf-8")
        .partition("gives 15 pairs, among them\n\n")[2]
        .partition("\n\n")[0]
    )
    assert len(page.splitlines()) == 5
    assert all(line in made for line in page.splitlines())


def test_pages_of_attacks_tell_the_measured_strength() -> None:
    records = {record.attack: record for record in baseline_records("cifar10-attacks")}
    clean = 100 * (records["none"].test_acc or 0)
    for name, record in records.items():
        if name != "none" and name.isidentifier():
            said = f"leaves a small undefended victim {100 * (record.test_acc or 0):.1f} %, where clean data give {clean:.1f} "
            assert said in (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")


def test_the_strength_of_every_attack_is_that_of_its_records() -> None:
    expected: dict[str, str] = {}
    for record in baseline_records("cifar10-attacks"):
        name = record.attack.replace("em[granularity=class,class_share=1.0]", "em, class-wise")
        expected[name] = f"{100 * (record.test_acc or 0):.1f}"
    clean = expected.pop("none")
    rows = rows_below("### Every attack, undefended", r"\*?[a-z]+.*")[1:16]
    shown = {re.sub(r"\*|, weak by design", "", row[0]): row[1:3] for row in rows}
    assert shown == {
        name: [value, f"{float(clean) - float(value):.1f}"] for name, value in expected.items()
    }


def test_the_numbers_of_quick_are_those_of_the_accepted_night() -> None:
    """``nightly`` has the cells of ``quick`` for two attacks, three purifiers and three seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in sorted(
        read_baseline(DOCS.parent / "results" / "baselines" / "nightly.jsonl"),
        key=lambda record: record.seed,
    ):
        found.setdefault((record.defense, record.attack), []).append(100 * (record.test_acc or 0))
    assert {len(values) for values in found.values()} == {3}
    first = {row[1]: row[2:6] for row in rows_below("## `quick`, embedded images", r"[\d-]+")}
    seeds = {row[0]: row[1:5] for row in rows_below("### Seeds, crops and earlier forms", "[a-z]+")}
    readme = dict(
        re.findall(
            r"^\| (none|JPEG 10|D-VAE|grayscale) \| (.*) \|$",
            (DOCS.parent / "README.md").read_text(encoding="utf-8"),
            re.M,
        )
    )
    names = {"none": "none", "JPEG 10": "jpeg", "D-VAE": "dvae", "grayscale": "grayscale"}
    assert {names[row]: cells.split(" | ") for row, cells in readme.items()} == {
        name: first[name] for name in names.values()
    }
    for (defense, attack), values in found.items():
        column = ["none", "em", "em[granularity=class,noise_steps=1]", "lsp"].index(attack)
        assert first[defense][column] == f"{values[0]:.1f}"
        if defense in seeds:
            assert seeds[defense][column] == shown_mean(values)
