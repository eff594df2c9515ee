"""The numbers in the documentation are those of the records that come with the repository."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType

import pytest

from benchmark.analysis.baseline import read_baseline
from benchmark.catalogue.registry import ROOT
from benchmark.running.last_run import last_selection, records_of
from benchmark.storage.record import Record
from benchmark.storage.store import Store

DOCS = ROOT / "docs"
BASELINES = ROOT / "results" / "baselines"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def baseline_records(suite: str) -> list[Record]:
    """Return the records of a suite that come with the repository."""
    selection = last_selection(BASELINES / suite)
    assert selection is not None
    return records_of(Store(BASELINES / "store"), selection)


def shown(name: str, page: str = "results.md") -> list[list[str]]:
    """Return the cells of the rows of a marked table, without its head."""
    text = (DOCS / page).read_text(encoding="utf-8")
    table = text.partition(f"<!-- begin: {name} -->")[2].partition("<!-- end -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def points(records: Sequence[Record]) -> str:
    """Return the mean in points; for several values, with their standard deviation."""
    values = [100 * (record.test_acc or 0) for record in records]
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def expected(records: Sequence[Record], attacks: Sequence[str]) -> dict[str, list[str]]:
    """Return accuracy by defense, one entry an attack, from the records alone."""
    return {
        defense: [
            points([r for r in records if (r.defense, r.attack) == (defense, attack)])
            for attack in attacks
        ]
        for defense in {record.defense for record in records}
    }


# The script makes the tables from the records


def test_every_table_is_that_of_the_records(tables: ModuleType) -> None:
    assert [
        page.name for page in tables.pages() if tables.filled(page.read_text()) != page.read_text()
    ] == []


def test_every_table_has_a_place(tables: ModuleType) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in tables.pages())
    assert sorted(re.findall(r"<!-- begin: ([\w-]+) -->", text)) == sorted(tables.TABLES)
    assert text.count("<!-- begin: ") == text.count("<!-- end -->")


def test_an_old_table_is_found_and_written_anew(
    tables: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    old = "a\n<!-- begin: one -->\nold\n<!-- end -->\nb\n<!-- begin: one -->\n<!-- end -->\n"
    page.write_text(old, encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: "| 1 |"})
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 1
    assert "page.md" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == old
    monkeypatch.setattr(sys, "argv", ["tables.py"])
    assert tables.main() == 0
    place = "<!-- begin: one -->\n\n| 1 |\n\n<!-- end -->\n"
    assert page.read_text(encoding="utf-8") == f"a\n{place}b\n{place}"
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0


# What the tables show, computed here once more


@pytest.mark.parametrize(
    ("suite", "number", "attacks"),
    [
        ("quick", 54, ["none", "em", "lsp"]),
        ("cifar10-lite", 65, ["none", "em", "em[granularity=class,class_share=1.0]", "lsp", "ops"]),
    ],
)
def test_the_ranking_of_a_suite(suite: str, number: int, attacks: list[str]) -> None:
    file = BASELINES / f"{suite}.jsonl"
    records = read_baseline(file) if file.exists() else baseline_records(suite)
    if suite == "quick":  # craft seeds 0 to 2 in fp32; the other records show the spread
        records = [r for r in records if r.precision == "fp32" and r.craft_seed < 3]
    assert len(records) == number
    rows = {row[1].removesuffix(" (undefended)"): row for row in shown(suite)}
    assert {name: row[2 : 2 + len(attacks)] for name, row in rows.items()} == expected(
        records, attacks
    )
    means = [float(row[-1].partition(" ")[0]) for row in rows.values()]
    assert means[:-1] == sorted(means[:-1], reverse=True)
    assert [row[0] for row in rows.values()] == [*map(str, range(1, len(rows))), "-"]


def test_the_sweep_of_dvae() -> None:
    found = expected(baseline_records("dvae-sweep"), ["none", "em", "ops"])
    assert found.pop("none")
    assert {row[0].strip("`"): row[2:5] for row in shown("dvae-sweep")} == found


def test_the_strength_of_every_attack() -> None:
    records = {record.attack: record for record in baseline_records("cifar10-attacks")}
    clean = 100 * (records.pop("none").test_acc or 0)
    found = {}
    for attack, record in records.items():
        acc = 100 * (record.test_acc or 0)
        name = "em, class-wise" if attack.startswith("em[") else attack
        found[name] = [f"{acc:.1f}", f"{clean - acc:.1f}"]
    rows = shown("cifar10-attacks")
    assert {row[0].partition(" (version")[0]: row[1:3] for row in rows} == found
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    below = {row[0].partition(" (")[0]: float(row[2]) for row in rows}
    assert [name for name, drop in below.items() if drop < 35] == ["hypo"]


def test_an_attack_of_another_version_says_so(tables: ModuleType) -> None:
    assert tables._older({"name": "ops", "version": 1}) == ""
    assert tables._older({"name": "ops", "version": 99}) == " (version 99)"
    assert tables._older({"name": "gone", "version": 1}) == ""


def test_the_purifiers_of_four_attacks(tables: ModuleType) -> None:
    rows = shown("purified")
    assert [row[0] for row in rows] == list(tables.PURIFIERS)
    found = {
        (record.defense.partition("[")[0], record.attack): points([record])
        for record in Store(BASELINES / "store").records()
        if record.attack in ("ar", "cuda", "tap", "sep") and record.defense == "jpeg"
    }
    numbers = [cell.partition(" (version")[0] for cell in rows[0][1:]]
    assert numbers == [found["jpeg", attack] for attack in ("ar", "cuda", "tap", "sep")]
    assert [cell.partition(" ")[2] for cell in [row[4] for row in rows]] == [
        "(version 1)",
        "(version 1)",
        "",
        "",
    ]
    assert [row[1:].count("-") for row in rows] == [0, 0, 2, 2]


def test_pages_of_attacks_tell_the_measured_strength() -> None:
    records = {record.attack: record for record in baseline_records("cifar10-attacks")}
    clean = 100 * (records["none"].test_acc or 0)
    for name, record in records.items():
        if name != "none" and name.isidentifier():
            acc = 100 * (record.test_acc or 0)
            said = (
                f"leaves a small undefended victim {acc:.1f} %, where clean data give {clean:.1f} "
            )
            assert said in (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")


# What the text says about the tables


def test_the_text_below_cifar10_lite() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    records = baseline_records("cifar10-lite")
    accs: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        cell = accs.setdefault((record.defense, record.attack), {})
        cell[record.seed] = 100 * (record.test_acc or 0)
    attacks = [attack for defense, attack in accs if defense == "dvae" and attack != "none"]
    worst = max(value for a in attacks for value in accs["none", a].values())
    restored = [value for a in attacks for value in accs["dvae", a].values()]
    assert f"the undefended victim has {worst:.1f} at most" in text
    assert f"D-VAE restores {min(restored):.0f} to {max(restored):.0f} %" in text
    clean = {name: mean(accs[name, "none"].values()) for name in ("none", "dvae", "jpeg")}
    dvae, jpeg = (f"{clean['none'] - clean[name]:.1f}" for name in ("dvae", "jpeg"))
    assert f"It pays {dvae} points on clean data, where JPEG pays {jpeg}" in text
    ahead = {a: mean(accs["dvae", a].values()) - mean(accs["jpeg", a].values()) for a in attacks}
    em, wise, lsp, ops = (ahead[a] for a in sorted(attacks))
    said = f"{em:.1f}, {wise:.1f} and {lsp:.1f} points on EM, class-wise EM and LSP, and {-ops:.1f}"
    assert f"D-VAE is ahead by {said} behind on OPS" in text
    for attack in attacks:
        signs = {accs["dvae", attack][s] > accs["jpeg", attack][s] for s in accs["jpeg", attack]}
        assert len(signs) == 1  # "with the same sign in every seed"


def test_the_spread_of_quick_keeps_what_the_suite_promises() -> None:
    """Twelve runs: six craft seeds in two precisions."""
    accs: dict[tuple[str, str, str], dict[int, float]] = {}
    for record in read_baseline(BASELINES / "quick.jsonl"):
        if record.defense in ("none", "dvae"):
            cell = accs.setdefault((record.precision, record.defense, record.attack), {})
            cell[record.craft_seed] = 100 * (record.test_acc or 0)
    assert {precision for precision, _, _ in accs} == {"fp32", "bf16"}
    for (precision, defense, attack), by_seed in accs.items():
        assert sorted(by_seed) == list(range(6))
        values = list(by_seed.values())
        if defense == "dvae":
            assert min(values) >= 65
            assert stdev(values) <= 4
        else:
            low, high = {"none": (88, 100), "lsp": (0, 40), "em": (0, 20)}[attack]
            assert all(low <= value <= high for value in values)
        if (defense, attack) == ("dvae", "none"):
            clean = accs[precision, "none", "none"]
            assert mean(clean.values()) - mean(values) <= 8


def test_nightly_has_the_accepted_records_of_quick() -> None:
    quick = {record.key: record for record in read_baseline(BASELINES / "quick.jsonl")}
    night = read_baseline(BASELINES / "nightly.jsonl")
    assert len(night) == 36
    assert [record for record in night if quick[record.key].test_acc != record.test_acc] == []


def test_the_text_below_the_agreement_with_papers() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    rows = {row[0]: row for row in shown("agreement")}
    reached = [name for name, row in rows.items() if float(row[4]) >= 0.8]
    assert reached == ["cifar10-lite, bridgepure2025"]  # "reaches the aim with ... alone"
    assert all("grayscale" in row[1] for row in shown("agreement-pairs"))  # "in all of them"
    assert "D-VAE on `tap` has 21.5 here" in text
    assert shown("purified")[1][3] == "21.5"
    yardsticks = {row[0]: row for row in shown("agreement-yardsticks")}
    papers = yardsticks["bridgepure2025, apbench2023"]
    assert papers[1:3] == ["7", "1"]  # "share one defense ... on seven attacks"
    assert f"agree by {papers[4]}" in text
    assert all(float(row[4]) < 0.8 for name, row in yardsticks.items() if "without" in name)
