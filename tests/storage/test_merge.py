"""Stores of several machines in one, records of older schemas, and the long table as files."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmark.analysis import columns as description
from benchmark.analysis.columns import MEANINGS, long_csv
from benchmark.analysis.table import COLUMNS, to_table
from benchmark.catalogue.registry import ROOT
from benchmark.storage.merge import merge_store
from benchmark.storage.record import SCHEMA, Record
from benchmark.storage.store import Store
from support.command_line import Call
from support.reports import record
from support.sets import random_set

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = [hashlib.sha256(name.encode()).hexdigest() for name in "abc"]


def filled(folder: Path, *accs: float, **values: Any) -> Store:
    """Return a store with one record for each given accuracy; every store has the same keys."""
    store = Store(folder / "store")
    for key, acc in zip(KEYS, accs, strict=False):
        store.publish_record(record("em", "soft", acc, key=key, **values))
    return store


def content(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in sorted(store.root.rglob("*"))
        if path.is_file()
    }


# Records


def test_what_is_lacking_is_copied_and_the_source_stays_as_it_is(tmp_path: Path) -> None:
    here, present = (
        filled(tmp_path / "a", 0.5),
        filled(tmp_path / "b", 0.5, 0.6, 0.7, environment={"device": "other"}, date="2026-01-01"),
    )
    before = content(present)
    merged = merge_store(here, present)
    assert (merged.records, merged.present, merged.conflicts, merged.refused) == (2, 1, [], [])
    assert [here.record(key).test_acc for key in KEYS] == [0.5, 0.6, 0.7]
    # the numbers are the same, so the record that was here stays
    assert here.record(KEYS[0]).date != "2026-01-01"
    assert here.record(KEYS[1]) == present.record(KEYS[1])
    assert content(present) == before
    again = merge_store(here, present)
    assert (again.records, again.present) == (0, 3)


def test_one_key_with_two_results_is_told_and_nothing_overwritten(tmp_path: Path) -> None:
    here, present = filled(tmp_path / "a", 0.5), filled(tmp_path / "b", 0.75)
    before = content(here)
    merged = merge_store(here, present)
    assert merged.records == 0
    (sentence,) = merged.conflicts
    assert "toy / em / soft / net / quick / seed 0" in sentence
    assert f"50.00 % here, 75.00 % in {present.root}; the one here stays" in sentence
    assert content(here) == before


def test_a_curve_that_differs_is_a_conflict_too(tmp_path: Path) -> None:
    here, present = filled(tmp_path / "a", 0.5), filled(tmp_path / "b", 0.5, curve=(0.1, 0.5))
    assert len(merge_store(here, present).conflicts) == 1


def test_a_failure_is_forgotten_once_there_is_a_result(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), filled(tmp_path / "b", 0.5)
    here.publish_failure(KEYS[0], "train", "no memory", "", None)
    present.publish_failure(KEYS[2], "train", "no memory", "", None)
    assert merge_store(here, present).records == 1
    assert list(here.failures()) == []  # and those of the other machine are not copied


def test_a_damaged_record_costs_itself_only(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), filled(tmp_path / "b", 0.5, 0.6, 0.7)
    for key, text in ((KEYS[0], "{"), (KEYS[1], json.dumps({"schema": SCHEMA + 1}))):
        (present.root / "records" / key[:2] / f"{key}.json").write_text(text)
    merged = merge_store(here, present)
    assert merged.records == 1
    assert len(merged.refused) == 2
    assert any("is damaged" in sentence for sentence in merged.refused)
    assert any(f"the record has schema {SCHEMA + 1}" in sentence for sentence in merged.refused)


def test_a_record_of_another_key_is_refused(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), filled(tmp_path / "b", 0.5)
    text = (present.root / "records" / KEYS[0][:2] / f"{KEYS[0]}.json").read_text()
    (present.root / "records" / KEYS[1][:2]).mkdir()
    (present.root / "records" / KEYS[1][:2] / f"{KEYS[1]}.json").write_text(text)
    merged = merge_store(here, present)
    assert merged.records == 1
    assert f"it holds the record of {KEYS[0]}" in merged.refused[0]


@pytest.mark.parametrize(
    "name", ["evil.json", f"{KEYS[0][:-1]}.json", f"{KEYS[0].upper()}.json", f"{KEYS[0]}0.json"]
)
def test_names_that_are_no_keys_are_refused(name: str, tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), filled(tmp_path / "b", 0.5)
    (present.root / "records" / name[:2]).mkdir(exist_ok=True)
    (present.root / "records" / name[:2] / name).write_text("{}")
    merged = merge_store(here, present)
    assert merged.records == 1
    assert "does not lie under a key; expected 64 hex digits" in merged.refused[0]


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), filled(tmp_path / "b", 0.5)
    outside = filled(tmp_path / "c", 0.9, 0.9)
    target = outside.root / "records" / KEYS[1][:2]
    (present.root / "records" / KEYS[1][:2]).symlink_to(target, target_is_directory=True)
    merged = merge_store(here, present)
    assert not here.has_record(KEYS[1])
    assert all("leads out of the store by a link" in sentence for sentence in merged.refused)
    assert len(merged.refused) == 1


def test_a_store_is_not_merged_into_itself_and_must_be_there(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.5)
    with pytest.raises(ValueError, match="cannot be merged into itself"):
        merge_store(store, Store(tmp_path / "." / "store"))
    with pytest.raises(ValueError, match="holds no records; expected a folder of results"):
        merge_store(store, Store(tmp_path / "absent" / "store"))


# Artifacts


def with_images(folder: Path, seed: int = 0) -> Store:
    store = Store(folder / "store")
    kept = {"model": {"w": torch.arange(3.0)}}
    store.publish_images(KEYS[0], random_set(4, 2, seed=seed), {"stage": "poison"}, kept)
    return store


def test_artifacts_come_along_on_request(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), with_images(tmp_path / "b")
    assert merge_store(here, present).artifacts == 0
    merged = merge_store(here, present, artifacts=True)
    assert (merged.artifacts, merged.refused) == (1, [])
    assert content(here) == content(present)
    assert here.load_images(KEYS[0]).fingerprint == random_set(4, 2).fingerprint
    assert merge_store(here, present, artifacts=True).present == 1


def test_other_images_under_one_key_are_a_conflict(tmp_path: Path) -> None:
    here, present = with_images(tmp_path / "a"), with_images(tmp_path / "b", seed=1)
    before = content(here)
    merged = merge_store(here, present, artifacts=True)
    assert "differ; those here stay" in merged.conflicts[0]
    assert content(here) == before


@pytest.mark.parametrize(
    "name", ["../../../../stolen.safetensors", "model.pt", "/etc/hostname", ".safetensors"]
)
def test_a_manifest_cannot_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), with_images(tmp_path / "b")
    file = present.root / "artifacts" / KEYS[0][:2] / KEYS[0] / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][name] = manifest["files"]["model.safetensors"]
    file.write_text(json.dumps(manifest))
    merged = merge_store(here, present, artifacts=True)
    assert merged.artifacts == 0
    assert "expected a plain name.safetensors" in merged.refused[0]
    assert not here.root.exists() or content(here) == {}
    assert list(tmp_path.rglob("stolen*")) == []


def test_a_damaged_image_file_is_refused(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), with_images(tmp_path / "b")
    file = present.root / "artifacts" / KEYS[0][:2] / KEYS[0] / "images.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    merged = merge_store(here, present, artifacts=True)
    assert merged.artifacts == 0
    assert "is corrupt" in merged.refused[0]
    assert content(here) == {}


def test_a_linked_image_file_is_refused(tmp_path: Path) -> None:
    here, present = Store(tmp_path / "a" / "store"), with_images(tmp_path / "b")
    file = present.root / "artifacts" / KEYS[0][:2] / KEYS[0] / "images.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert (
        "leads out of the store by a link" in merge_store(here, present, artifacts=True).refused[0]
    )


# Commands


def test_merge_and_report_from_the_command_line(call: Call, tmp_path: Path) -> None:
    filled(tmp_path / "one", 0.5)
    filled(tmp_path / "two", 0.5, 0.75)
    result = call("merge", "one", "two")
    assert result.code == 0, result.err
    assert "one: 1 records copied, 0 there already" in result.out
    assert "two: 1 records copied, 1 there already" in result.out
    assert call("report", "--all").code == 0
    filled(tmp_path / "three", 0.25)
    differing = call("merge", "three")
    assert differing.code == 1
    assert "differs: toy / em / soft" in differing.err
    assert call("merge", "absent").code == 2


def test_the_long_table_is_written_with_its_description(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(description, "import_module", absent)
    store = filled(tmp_path / "results", 0.5, 0.75)
    failed = record("em", "<b>", None, key=KEYS[2])
    store.publish_failure(KEYS[2], "train", failed.error, "", failed)
    folder = tmp_path / "results" / "all"
    folder.mkdir()
    (folder / "records.parquet").write_bytes(b"of an earlier table")
    result = call("table", "--license", "CC-BY-4.0")
    assert result.code == 0, result.err
    assert "3 records" in result.out
    assert (
        "there is no records.parquet: pyarrow is not installed: "
        "pip install pyarrow, or uebench with its extra" in result.err
    )
    assert "'.[parquet]'" in result.err
    assert not (folder / "records.parquet").exists()  # an earlier one would not be of these records
    with (folder / "records.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [
        (row["defense"], row["status"], row["test_acc"], row["curve"])
        for row in sorted(rows, key=lambda row: row["test_acc"])
    ] == [
        ("<b>", "failed", "", "[]"),
        ("soft", "ok", "0.5", "[0.25, 0.5]"),
        ("soft", "ok", "0.75", "[0.375, 0.75]"),
    ]
    described = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    assert described["license"] == "CC-BY-4.0"
    assert [item["name"] for item in described["fields"]] == list(rows[0])
    (file,) = described["distribution"]
    data = (folder / "records.csv").read_bytes()
    assert (file["name"], file["contentSize"], file["sha256"]) == (
        "records.csv",
        len(data),
        hashlib.sha256(data).hexdigest(),
    )


def test_parquet_holds_what_the_csv_holds(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install -e '.[parquet]'")
    store = filled(tmp_path / "results", 0.5, 0.75)
    failed = record("em", "<b>", None, key=KEYS[2])
    store.publish_failure(KEYS[2], "train", failed.error, "", failed)
    result = call("table")
    assert result.code == 0, result.err
    assert "records.parquet" in result.out
    folder = tmp_path / "results" / "all"
    rows, again = (
        pd.read_parquet(folder / "records.parquet"),
        pd.read_csv(folder / "records.csv", keep_default_na=False, na_values=[""]),
    )
    assert list(rows.columns) == list(MEANINGS) == list(again.columns)
    assert len(rows) == len(again) == 3
    for name in rows.columns:
        if rows[name].dtype.kind in "fib":
            assert rows[name].tolist() == pytest.approx(again[name].tolist(), nan_ok=True), name
        else:
            assert rows[name].tolist() == [
                value if value == value else "" for value in again[name].tolist()
            ], name
    assert sorted(json.loads(curve) for curve in rows["curve"]) == [[], [0.25, 0.5], [0.375, 0.75]]
    described = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    digests = {item["name"]: item["sha256"] for item in described["distribution"]}
    assert digests == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("records.csv", "records.parquet")
    }


def test_a_table_of_nothing_says_what_to_do(call: Call) -> None:
    assert "there are no records in" in call("table").err
    assert (
        "the suite quick has no run in results (there is no such folder); run it first"
        in call("table", "quick").err
    )


def test_every_column_has_a_meaning() -> None:
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    assert "\n".join(f"| `{name}` | {meaning} |" for name, meaning in MEANINGS.items()) in page
    assert list(MEANINGS) == [*COLUMNS, "superseded"]
    assert next(csv.reader(long_csv(to_table([])).splitlines())) == list(MEANINGS)


# Schemas


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_a_record_of_each_schema_still_loads(schema: int) -> None:
    """``tests/golden/record-schema-N.json`` are as that schema wrote them.

    Never change one; add one for a new schema.
    """
    one = Record.from_json(
        json.loads((GOLDEN / f"record-schema-{schema}.json").read_text(encoding="utf-8"))
    )
    assert (one.schema, one.test_acc, one.curve, one.needs) == (
        schema,
        0.125,
        (0.25, 0.125),
        ("clean:5",),
    )
    assert one.attack_spec["params"]["granularity"] == "class"
    table = to_table([one])
    assert table.loc[0, "status"] == "ok"
    assert table.loc[0, "seconds_train"] == 12.25
    assert not math.isnan(table["test_acc"][0])
