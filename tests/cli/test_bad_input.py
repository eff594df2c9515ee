"""Bad input that the other test files do not cover: images, labels, records and damaged stores."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.catalogue.spec import Spec
from benchmark.data import DatasetInfo, ImageSet
from benchmark.datasets._open import open_dataset
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.record import SCHEMA, Record
from support.sets import random_set
from support.tiny_bench import HEAD, Bench, one_method

INFO = DatasetInfo("toy", 3, ("a", "b", "c"), 3, 8, 8, hflip=True)


# Images and labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], r"labels run from 0 to 3, expected 0\.\.2 for toy"),
        ([-1, 1, 2], r"labels run from -1 to 2, expected 0\.\.2 for toy"),
    ],
)
def test_labels_out_of_range(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor(labels), INFO)


def test_a_data_set_whose_labels_are_out_of_range_is_not_cached(
    tmp_path: Path, bench: Bench
) -> None:
    bench.method(
        "odd",
        "import torch\nfrom benchmark import Dataset, DatasetInfo, ImageSet, Splits, dataset\n\n"
        '@dataset(version=1, cite="nobody")\n'
        'class Odd(Dataset):\n    """Count labels from one."""\n\n'
        "    def load(self, root, ctx, download=False):\n"
        '        info = DatasetInfo("odd", 2, ("a", "b"), 3, 8, 8, True)\n'
        "        x, y = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([1, 2, 1, 2])\n"
        "        data = ImageSet(x, y, info)\n"
        "        return Splits(data, data)\n",
    )
    with pytest.raises(ValueError, match=r"labels run from 1 to 2, expected 0\.\.1 for odd"):
        open_dataset(Spec("odd"), tmp_path / "root", bench.registry)
    assert list((tmp_path / "root" / "cache").iterdir()) == []


def test_images_of_another_type_or_shape() -> None:
    y = torch.zeros(2, dtype=torch.int64)
    x = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(
        TypeError,
        match=r"images are torch\.float32, expected uint8 0\.\.255; convert with ImageSet\.perturb",
    ):
        ImageSet(x / 255, y, INFO)
    with pytest.raises(
        ValueError,
        match=r"images have shape \(2, 8, 8, 3\), expected \(2, 3, 8, 8\) \(N, C, H, W\) for toy",
    ):
        ImageSet(x.permute(0, 2, 3, 1), y, INFO)
    with pytest.raises(TypeError, match=r"labels are torch\.int32 \(2,\), expected int64 \(N,\)"):
        ImageSet(x, y.int(), INFO)
    with pytest.raises(TypeError, match=r"labels are torch\.int64 \(2, 1\)"):
        ImageSet(x, y[:, None], INFO)


def test_infos_that_describe_no_classification() -> None:
    with pytest.raises(
        ValueError, match=r'data set "one" has 1 class\(es\); classification needs at least 2'
    ):
        DatasetInfo("one", 1, ("a",), 3, 8, 8, hflip=True)
    with pytest.raises(ValueError, match='data set "two" names 3 classes but has 2'):
        DatasetInfo("two", 2, ("a", "b", "c"), 3, 8, 8, hflip=True)


def test_changes_that_are_no_images() -> None:
    data = random_set(40_000, 2)
    with pytest.raises(
        ValueError, match=r"delta has shape \(2, 3, 8, 8\), expected \(40000, 3, 8, 8\)"
    ):
        data.perturb(torch.zeros(2, 3, 8, 8))
    for value in (float("nan"), float("inf")):
        delta = torch.zeros(data.x.shape)
        delta[32_800, 1, 2, 3] = value  # beyond the first chunk
        with pytest.raises(
            ValueError, match="delta of image 32800 is not finite; the attack diverged"
        ):
            data.perturb(delta)
    with pytest.raises(
        TypeError, match=r"map got torch\.float32 .* from its function, expected uint8"
    ):
        data.map(lambda x: x / 255)
    with pytest.raises(TypeError, match=r"map got torch\.uint8 \(32768, 3, 4, 8\)"):
        data.map(lambda x: x[:, :, ::2])


# Records


def good_record() -> dict[str, Any]:
    names = {
        "dataset": "toy",
        "attack": "em",
        "defense": "none",
        "victim": "resnet18",
        "protocol": "quick",
    }
    return Record(key="ab" * 32, test_acc=0.5, curve=(0.1, 0.5), **names).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": SCHEMA + 1},
            rf"the record has schema {SCHEMA + 1}, but this uebench reads up to {SCHEMA}; "
            r"update uebench to read it",
        ),
        ({"schema": None}, r"the record is damaged: its schema is None, expected a number from 1"),
        ({"schema": "1"}, r"the record is damaged: its schema is '1'"),
        ({"schema": 0}, "the record is damaged: its schema is 0"),
    ],
)
def test_records_of_another_schema(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Record.from_json({**good_record(), **change})


def test_a_record_that_lacks_a_field() -> None:
    content = good_record()
    del content["defense"]
    with pytest.raises(ValueError, match=r"incomplete record: .*'defense'"):
        Record.from_json(content)
    assert Record.from_json({**good_record(), "of_a_later_release": 1}) == Record.from_json(
        good_record()
    )


# Damage between two runs: the run names it and keeps everything else


def files(bench: Bench) -> dict[str, bytes]:
    """Return the content of records and artifacts; notes about failures come and go."""
    found = (
        path for part in ("records", "artifacts") for path in (bench.store.root / part).rglob("*")
    )
    return {
        str(path.relative_to(bench.store.root)): path.read_bytes()
        for path in found
        if path.is_file()
    }


def artifact(bench: Bench, kind: str, **axes: Any) -> Path:
    key = next(stage.key for stage in bench.plan(**axes).stages if stage.kind == kind)
    return bench.store.root / "artifacts" / key[:2] / key / "images.safetensors"


def test_a_truncated_artifact_is_made_again_only_when_it_is_needed(bench: Bench) -> None:
    bench.records(defenses=["none", "grayscale"])
    before = files(bench)
    poison = artifact(bench, "poison")
    poison.write_bytes(poison.read_bytes()[:-5])
    assert bench.run(defenses=["none", "grayscale"]).done == 0  # the records are there
    outcome = bench.run(defenses=["none", "bdr"])
    assert (outcome.failed, outcome.done) == (0, 3)
    after = files(bench)
    assert {name for name in before if before[name] != after[name]} <= {
        str(poison.with_name("manifest.json").relative_to(bench.store.root))
    }


def test_a_pickle_in_place_of_an_artifact_fails_its_readers_alone(bench: Bench) -> None:
    bench.method(
        "tint",
        one_method(
            "attack",
            "def poison(self, data, ctx):\n        return data.with_x(data.x // 2)",
            norm="none",
        ),
    )
    bench.records(attacks=["none", "tint"])
    before = files(bench)
    poison = artifact(bench, "poison", attacks="tint")
    content = pickle.dumps({"x": "not images"})
    poison.write_bytes(content.ljust(poison.stat().st_size, b"."))
    outcome = bench.run(attacks=["none", "tint"], defenses="grayscale")
    assert (outcome.done, outcome.failed, outcome.blocked) == (2, 1, 1)
    assert re.search(
        r"is a pickle, expected safetensors; it was not opened.* "
        r"delete the folder .* and run again",
        outcome.failures[0].error,
    )
    after = files(bench)
    assert {name for name in before if before[name] != after[name]} == {
        str(poison.relative_to(bench.store.root))
    }
    for file in poison.parent.iterdir():  # what the message says
        file.unlink()
    outcome = bench.run(attacks=["none", "tint"], defenses="grayscale")
    assert (outcome.exit_code, outcome.done) == (0, 3)
    assert poison.read_bytes() == before[str(poison.relative_to(bench.store.root))]


def test_a_damaged_record_is_named_and_the_others_stay(bench: Bench) -> None:
    bench.records(defenses=["none", "grayscale"])
    before = files(bench)
    damaged, other = sorted((bench.store.root / "records").rglob("*.json"))
    newer = {**json.loads(damaged.read_text()), "schema": SCHEMA + 1}
    for content, message in (
        ("{", "is damaged .*; delete it and run again"),
        (json.dumps(newer), "update uebench to read it"),
    ):
        damaged.write_text(content)
        with pytest.raises(ValueError, match=rf"{damaged.name}\b.*{message}"):
            list(bench.store.records())
        assert damaged.read_text() == content  # the run repairs and deletes nothing in silence
    damaged.unlink()
    assert bench.run(defenses=["none", "grayscale"]).done == 1
    assert (
        files(bench)[str(other.relative_to(bench.store.root))]
        == before[str(other.relative_to(bench.store.root))]
    )
    assert len(list(bench.store.records())) == 2


@pytest.mark.parametrize("place", ["poison", "purify", "train"])
def test_a_disk_that_fills_up_during_a_run_loses_nothing(
    place: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.records(defenses="none", seeds=5)
    before = files(bench)
    key = next(
        stage.key
        for stage in bench.plan(attacks="lsp[patch=4]", defenses="grayscale").stages
        if stage.kind == place
    )
    sync = os.fsync

    def full(descriptor: int) -> None:
        if key in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    outcome = bench.run(attacks="lsp[patch=4]", defenses="grayscale")
    assert outcome.exit_code == 1
    assert re.search(
        r"cannot write to .*: the disk is full or the quota used up; free some space",
        outcome.stopped,
    )
    done = ("poison", "purify", "train").index(place)
    assert (outcome.done, outcome.missing) == (done, 2 - done)
    after = files(bench)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if key in name]  # no half-written file
    monkeypatch.setattr(os, "fsync", sync)
    outcome = bench.run(attacks="lsp[patch=4]", defenses="grayscale")
    assert (outcome.done, outcome.exit_code) == (3 - done, 0)


def test_a_read_only_store_stops_a_run_before_its_first_stage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.records()
    before = files(bench)
    plan = bench.plan(defenses="grayscale")

    def read_only(descriptor: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", read_only)
    refused = rf"cannot write to {bench.store.root}: the folder is read-only .* "
    with pytest.raises(OSError, match=refused + "make it writable or choose another store"):
        run_plan(plan.stages, bench.store, bench.machine, executor="inline", display="none")
    assert files(bench) == before
    cached = run_plan(
        bench.plan().stages, bench.store, bench.machine, executor="inline", display="none"
    )
    assert (cached.exit_code, cached.cached) == (0, 2)  # a finished run can still be read


# Losses


def test_a_loss_that_overflows_is_named_with_its_epoch_and_costs_its_cell_alone(
    bench: Bench,
) -> None:
    loss = (
        "def loss(self, model, x, y, ctx):\n"
        "        return super().loss(model, x, y, ctx) * 1e38 ** 2"
    )
    bench.method("huge", one_method("defense", loss))
    outcome = bench.run(defenses=["none", "huge"])
    assert (outcome.done, outcome.failed) == (2, 1)
    assert re.search(
        r"the training loss is (inf|nan) in epoch 1 of 2 \(step \d\); the defense's loss diverged",
        outcome.failures[0].error,
    )
    assert [record.defense for record in bench.store.records()] == ["none"]


def test_a_plugin_that_cannot_be_imported_is_named(bench: Bench) -> None:
    bench.method(
        "needy",
        HEAD + "import no_such_library\n" + one_method("defense", "pass").removeprefix(HEAD),
    )
    outcome = bench.run(defenses=["none", "needy"])
    assert (outcome.done, outcome.failed) == (2, 1)
    assert outcome.failures[0].error == "ModuleNotFoundError: No module named 'no_such_library'"
