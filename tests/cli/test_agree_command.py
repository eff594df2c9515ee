"""The command ``agree``, and what it prints and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.running.last_run import save_selection
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.command_line import Call
from support.published_numbers import measured

CIFAR = {"dataset": "cifar10", "dataset_spec": {"name": "cifar10"}, "victim": "resnet18"}
GRAY = {"name": "grayscale", "params": {"test": False}}


def made() -> list[Record]:
    """Return JPEG before grayscale on two attacks, where iss2023 has grayscale before JPEG."""
    return [
        *measured("em", "none", 0.2, **CIFAR),
        *measured("em", "jpeg", 0.7, **CIFAR),  # 81.50 there
        *measured("em", "grayscale", 0.5, **CIFAR, defense_spec=GRAY),  # 93.01 there
        *measured("rem", "jpeg", 0.6, **CIFAR),  # 81.50 there
        *measured("rem", "grayscale", 0.3, **CIFAR, defense_spec=GRAY),  # 92.84 there
    ]


def publish(folder: Path, records: Sequence[Record]) -> list[str]:
    """Put the records into the store below ``folder`` under keys of their own."""
    keys = [f"{index:064x}" for index in range(len(records))]
    for key, record in zip(keys, records, strict=True):
        Store(folder / "store").publish_record(replace(record, key=key))
    return keys


def test_it_prints_the_agreement_and_writes_a_page(call: Call, tmp_path: Path) -> None:
    results = tmp_path / "results"
    keys = publish(results, made())
    save_selection(results / "quick", {key: {} for key in keys[:3]})  # rem is of another run
    found = call("agree", "quick")
    assert found.code == 0, found.err
    page = (results / "quick" / "agreement.md").read_text(encoding="utf-8")
    for line in (
        "rem: jpeg 60.0 > grayscale 30.0 here, 81.5 < 92.8 there",
        "em: jpeg 70.0 > grayscale 50.0 here, 81.5 < 93.0 there",
    ):
        assert line in found.out
        assert f"- {line.replace('<', '&lt;')}" in page
    assert "# Agreement of quick with published tables" in page
    assert "agreement: " in found.out
    asked = call("agree", "--published", "iss2023")  # all records
    assert asked.code == 0, asked.err
    assert "iss2023" in asked.out
    assert "apbench2023" not in asked.out
    assert (results / "all" / "agreement.md").exists()


def test_what_is_lacking_is_told(call: Call, tmp_path: Path) -> None:
    assert "the suite quick has no run in results" in call("agree", "quick").err
    keys = publish(tmp_path / "results", made()[:1])
    save_selection(tmp_path / "results" / "quick", {keys[0]: {}})
    lacking = call("agree", "quick")
    assert lacking.code == 2
    assert "quick has no finished record of a defended victim on an attacked data set" in (
        lacking.err
    )


@pytest.mark.parametrize("wanted", ["bridgepure", "iss2023[dataset=cifar]"])
def test_an_unknown_source_or_data_set_is_told(wanted: str, call: Call, tmp_path: Path) -> None:
    publish(tmp_path / "results", made())
    found = call("agree", "--published", wanted)
    assert found.code == 2
    assert "did you mean" in found.err
