"""The shipped file of published numbers, and its reading."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmark.analysis.published import (
    COLUMNS,
    FILE,
    Published,
    load_names,
    load_published,
)
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import parse_spec

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_shipped_file_is_whole_and_its_sources_are_described() -> None:
    rows = load_published()
    assert len(rows) == 1274
    page = FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert {row.source for row in rows} == set(re.findall(r"^## (\w+\d{4}\w*)$", page, re.M))
    first = rows[0]
    assert (first.source, first.mean, first.std, first.epochs, first.ratio) == (
        "bridgepure2025",
        0.9401,
        0.0015,
        120,
        0.0,
    )
    assert any(math.isnan(row.std) for row in rows)
    assert any(row.epochs is None for row in rows)


LINE = dict(
    zip(
        COLUMNS,
        [
            "src2020",
            "toy",
            "net",
            "em",
            "linf",
            "8/255",
            "1.0",
            "none",
            "20.5",
            "0.5",
            "60",
            "Table 1",
        ],
        strict=True,
    )
)


def write(file: Path, **changes: str) -> Path:
    row = {**LINE, **changes}
    file.write_text(
        f"{','.join(COLUMNS)}\n{','.join(row[name] for name in COLUMNS)}\n", encoding="utf-8"
    )
    return file


def test_a_line_is_read(tmp_path: Path) -> None:
    (row,) = load_published(write(tmp_path / "p.csv"))
    assert row == Published(
        *("src2020", "toy", "net", "em", "linf", "8/255", 1.0, "none", 0.205, 0.005, 60, "Table 1"),
        our_attack=parse_spec("em[granularity=sample]"),
        our_defense=parse_spec("none"),
    )


def test_a_method_that_has_no_counterpart_here_is_read_too(tmp_path: Path) -> None:
    (row,) = load_published(write(tmp_path / "p.csv", attack="unheard_of"))
    assert row.our_attack is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"accuracy_mean": "941"},
            r'p.csv, line 2: accuracy_mean is "941", expected a number from 0 to 100',
        ),
        ({"accuracy_mean": ""}, 'accuracy_mean is ""'),
        ({"accuracy_std": "-1"}, 'accuracy_std is "-1"'),
        ({"poison_ratio": "nan"}, 'poison_ratio is "nan", expected a number from 0 to 1'),
        (
            {"poison_ratio": "0"},
            "attack em with poison_ratio 0; expected ratio 0 for none and only for it",
        ),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attacks: [", "n.yaml is not YAML"),
        ("attacks: {}", "expected the two mappings attacks and defenses"),
        ("- 1", "expected the two mappings attacks and defenses"),
        ("attacks: {}\ndefenses: 3", "n.yaml, defenses: 3, expected a mapping"),
        ("attacks: {em: null}\ndefenses: {}", "n.yaml, attacks: 'em' stands for None, expected"),
        ("attacks:\n  em: em[\ndefenses: {}", "n.yaml, attacks, em: "),
    ],
)
def test_a_wrong_file_of_names_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_names(tmp_path / "n.yaml")


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_identifiers_stand_for_methods_that_there_are(kind: str, registry: Registry) -> None:
    names = load_names().attacks if kind == "attack" else load_names().defenses
    for spec in names.values():
        for part in spec.parts():
            assert registry.card(kind, part.name).unknown(part.params) == [], str(spec)
    known = {row.attack if kind == "attack" else row.defense for row in load_published()}
    assert set(names) - known == set()
    unmapped = {name for name in known & set(registry.cards(kind)) if name not in names}
    assert unmapped <= {"jpeg"}, (
        "add them to results/published_names.yaml, with the parameters that say which is meant"
    )
