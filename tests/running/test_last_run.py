"""The cells of a suite's last run: written with its own labels, read back, refused if damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.running.last_run import last_selection, records_of, save_selection
from benchmark.storage.record import Record
from benchmark.storage.store import Store

KEY = "ab" * 32


def stored(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    record = Record(
        key=KEY,
        dataset="toy",
        attack="lsp",
        defense="dvae[width=32]",
        victim="net",
        protocol="quick",
        curve=(0.5,),
        test_acc=0.5,
    )
    store.publish_record(record)
    return store


def test_results_are_shown_under_the_suites_labels(tmp_path: Path) -> None:
    labels = {KEY: {"dataset": "toy[seed=0]", "attack": "lsp", "defense": "dvae"}}
    save_selection(tmp_path, labels)
    selection = last_selection(tmp_path)
    assert selection == labels
    (record,) = records_of(stored(tmp_path), selection)
    assert (record.dataset, record.attack, record.defense, record.test_acc) == (
        "toy[seed=0]",
        "lsp",
        "dvae",
        0.5,
    )


def test_files_without_labels_show_those_of_the_records(tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text(
        json.dumps({"cells": [KEY, "cd" * 32]}), encoding="utf-8"
    )
    selection = last_selection(tmp_path)
    assert selection == {KEY: {}, "cd" * 32: {}}
    assert [record.defense for record in records_of(stored(tmp_path), selection)] == [
        "dvae[width=32]"
    ]


def test_a_suite_that_never_ran_has_none(tmp_path: Path) -> None:
    assert last_selection(tmp_path) is None


@pytest.mark.parametrize("cells", [None, "ab", [3], [{"attack": "lsp"}], [{"key": 3}]])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, cells: object) -> None:
    (tmp_path / "selection.json").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"selection\.json is damaged \(it lists no cells\); "
        r"delete it and run the suite again",
    ):
        last_selection(tmp_path)
