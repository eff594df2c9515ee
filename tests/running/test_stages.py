"""Stages from images to records: what a record holds; the same plan gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.catalogue.registry import ROOT
from benchmark.datasets._open import fingerprint
from benchmark.keys import axis_seed, digest
from benchmark.planning.stage import Stage
from benchmark.running import stages as stages_module
from benchmark.running.stages import mix, run_stage
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from benchmark.training.train import Fit
from support.sets import random_set
from support.tiny_bench import COARSE, PURIFY, SHADE, Bench, one_method


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_record_tells_the_whole_story(bench: Bench) -> None:
    bench.method("shade", SHADE)
    bench.method("coarse", COARSE)
    bench.run(attacks="shade[eps=24/255]", defenses="coarse", seeds=4)
    (record,) = bench.store.records()
    plan = bench.plan(attacks="shade[eps=24/255]", defenses="coarse", seeds=4)
    poison, purify, train = (stage.key for stage in plan.stages)
    assert (record.key, record.status, record.error) == (train, "ok", "")
    assert (record.attack, record.defense, record.victim, record.protocol) == (
        "shade[eps=24/255]",
        "coarse",
        "resnet10_w16",
        "quick",
    )
    assert (record.ratio, record.seed, record.craft_seed, record.precision, record.needs) == (
        1.0,
        4,
        0,
        "fp32",
        ("clean:5",),
    )
    assert record.attack_spec == {"name": "shade", "version": 2, "params": {"eps": 24 / 255}}
    assert record.defense_spec == {"name": "coarse", "version": 3, "params": {"levels": 8}}
    assert record.dataset_spec["fingerprint"] == fingerprint(
        plan.cells[0].dataset, bench.data_root, bench.registry
    )
    assert (
        record.protocol_spec["epochs"],
        record.protocol_spec["batch_size"],
        record.protocol_spec["lr"],
    ) == (2, 10, 0.05)
    assert (len(record.curve), len(record.loss_curve)) == (2, 2)
    assert record.test_acc == record.curve[-1]
    assert all(0 <= value <= 1 for value in (*record.curve, record.train_acc or 0))
    assert record.train_acc is not None
    assert set(record.seconds) == {"poison", "purify", "train"}
    assert record.seconds["train"] > 0
    assert set(record.cpu_seconds) == {"poison", "purify", "train"}
    assert record.cpu_seconds["train"] > 0
    assert record.peak_memory_mb > 50
    assert record.facts["poison"]["rounds"] == 7
    assert 20 / 255 < record.facts["poison"]["linf"] <= 24.5 / 255
    assert 0 < record.facts["purify"]["mean"] < 255
    assert record.facts["data"] == {"classes": 2, "test": 10, "train_measured": 20}
    artifacts = {
        name: bench.store.root / "artifacts" / key[:2] / key
        for name, key in (("poison", poison), ("purify", purify))
    }
    assert record.artifacts == {
        name: sha256(folder / "images.safetensors") for name, folder in artifacts.items()
    }
    assert set(record.environment) == {
        *("python", "torch", "torchvision", "numpy", "pillow", "scikit-learn"),
        *("device", "device_type", "cpu", "threads", "git"),
    }
    assert record.environment["threads"] == 1
    plugins = {file.name: sha256(file) for file in bench.plugins}
    assert record.sources.items() >= plugins.items()
    own = {name: sha for name, sha in record.sources.items() if name not in plugins}
    assert {f"benchmark/victims/{record.victim}.py", "benchmark/training/train.py"} <= set(own)
    assert own == {name: sha256(ROOT / name) for name in own}  # test_sources.py says which
    assert digest(record.identity) == record.key
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.date)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    unset = [
        item.name for item in fields(Record) if getattr(record, item.name) in ((), {}, "", None)
    ]
    assert unset == ["device_seconds", "error"]  # no stage ran on a GPU


def test_the_last_epoch_counts_and_not_the_best(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Fit(torch.nn.Identity(), [0.9, 0.4], [0.8], [1.5, 1.0])
    monkeypatch.setattr(stages_module, "fit", lambda *args, **kwargs: result)
    (record,) = bench.records().values()
    assert (record.test_acc, record.curve, record.train_acc, record.loss_curve) == (
        0.4,
        (0.9, 0.4),
        0.8,
        (1.5, 1.0),
    )


def test_artifacts_hold_what_the_methods_returned(bench: Bench) -> None:
    bench.method("shade", SHADE)
    bench.method("coarse", COARSE)
    plan = bench.plan(attacks=["none", "shade"], defenses="coarse")
    assert bench.run(attacks=["none", "shade"], defenses="coarse").done == 6
    keys = {stage.label: stage.key for stage in plan.stages}
    clean, poisoned = (
        bench.store.load_images(keys[f"poison {name}"]) for name in ("none", "shade")
    )
    purified = bench.store.load_images(keys["purify shade with coarse"])
    assert torch.equal(clean.y, poisoned.y)
    change = poisoned.x.float() - clean.x.float()
    assert 0 < change.max() <= 16
    assert torch.equal(purified.x, poisoned.x // 8 * 8)
    assert torch.equal(
        bench.store.load_kept(keys["poison shade"], "levels")["level"], torch.ones(2)
    )
    manifest = bench.store.manifest(keys["purify shade with coarse"])
    assert manifest["kind"] == "purify"
    assert manifest["label"] == "purify shade with coarse"
    assert manifest["inputs"] == [keys["poison shade"]]
    assert manifest["method"] == {
        "kind": "defense",
        "name": "coarse",
        "version": 3,
        "params": {"levels": 8},
    }
    assert manifest["source"]["coarse.py"] == sha256(bench.plugins[1])
    assert "benchmark/data.py" in manifest["source"]
    assert digest(manifest["identity"]) == manifest["key"]
    assert manifest["seconds"] >= 0
    assert manifest["cpu_seconds"] >= 0
    assert (
        list((bench.store.root / "scratch").iterdir()) == []
    )  # working folders go when their stage is done


def test_progress_and_log_lines_reach_the_caller(bench: Bench) -> None:
    bench.method("shade", SHADE)
    bench.method("coarse", COARSE)
    seen: list[object] = []
    for stage in bench.plan(attacks="shade", defenses="coarse").stages[:2]:
        run_stage(
            stage,
            bench.store,
            bench.machine,
            lambda share, note: seen.append((share, note)),
            seen.append,
        )
    assert seen == [(0.5, "half"), "coarse sees 20 images"]


def test_a_declared_filter_trains_on_fewer_images(bench: Bench) -> None:
    bench.method(
        "drops",
        one_method(
            "defense",
            PURIFY + "return data.select(torch.arange(0, len(data), 2))",
            filters=True,
        ),
    )
    bench.records(defenses="drops")
    key = next(stage.key for stage in bench.plan(defenses="drops").stages if stage.kind == "purify")
    assert len(bench.store.load_images(key)) == 10


def test_defenses_are_compared_in_pairs(bench: Bench) -> None:
    """A defense that changes nothing gives the undefended victim's numbers.

    Weights and batches are the same.
    """
    bench.method("still", one_method("defense", PURIFY + "return data"))
    bench.method(
        "idle", one_method("defense", "def augment(self, x, y, ctx):\n        return x, y")
    )
    found = bench.records(defenses=["none", "still", "idle"])
    assert len(found) == 3
    assert (
        len(
            {
                (record.curve, record.loss_curve, record.test_acc, record.train_acc)
                for record in found.values()
            }
        )
        == 1
    )
    assert bench.run(seeds=1).done == 1
    assert len({record.loss_curve for record in bench.store.records()}) == 2


def test_test_images_go_through_at_test(bench: Bench) -> None:
    bench.method(
        "blind", one_method("defense", "def at_test(self, x):\n        return torch.zeros_like(x)")
    )
    assert bench.records(defenses="blind", protocol_values={"epochs": 1, "batch_size": 10})[
        "none + blind"
    ].curve == (0.5,)


def test_the_poison_ratio_is_applied_before_the_defense_and_before_training(bench: Bench) -> None:
    bench.method("shade", SHADE)
    bench.method("still", one_method("defense", PURIFY + "return data"))
    plan = bench.plan(attacks=["none", "shade"], defenses=["still", "none"], ratios=[0.3, 1])
    outcome = bench.run(attacks=["none", "shade"], defenses=["still", "none"], ratios=[0.3, 1])
    assert outcome.exit_code == 0
    clean, poisoned = (
        bench.store.load_images(cell.stages[0])
        for cell in plan.cells
        if cell.defense.name == "none" and cell.ratio == 1
    )
    differs: dict[float, set[int]] = {}
    for cell in plan.cells:
        if cell.attack.name == "shade" and cell.defense.name == "still":
            x = bench.store.load_images(cell.stages[1]).x
            changed = (x != clean.x).flatten(1).any(1)
            assert torch.equal(x[changed], poisoned.x[changed])
            differs[cell.ratio] = set(changed.nonzero().flatten().tolist())
    assert (len(differs[0.3]), len(differs[1.0])) == (6, 20)
    curves = {
        (cell.ratio, cell.defense.name): bench.store.record(cell.key).loss_curve
        for cell in plan.cells
        if cell.attack.name == "shade"
    }
    assert (
        curves[0.3, "none"] == curves[0.3, "still"] != curves[1.0, "none"]
    )  # mixed by the train stage as by the purify stage


def test_smaller_ratios_nest_in_larger_ones() -> None:
    clean = random_set(200, 4)
    poisoned = clean.with_x(255 - clean.x)
    seed = axis_seed("mix", "data", 0)
    chosen = {}
    for ratio in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        mixed = mix(clean, poisoned, ratio, seed)
        changed = (mixed.x == poisoned.x).flatten(1).all(1)
        assert torch.equal(mixed.x[~changed], clean.x[~changed])
        assert torch.equal(mixed.y, clean.y)
        chosen[ratio] = set(changed.nonzero().flatten().tolist())
        assert len(chosen[ratio]) == round(200 * ratio)
    ordered = list(chosen.values())
    assert all(small < large for small, large in pairwise(ordered))
    other = mix(clean, poisoned, 0.25, axis_seed("mix", "data", 1))
    assert (
        set((other.x == poisoned.x).flatten(1).all(1).nonzero().flatten().tolist()) != chosen[0.25]
    )
    assert torch.equal(mix(clean, poisoned, 0.25, seed).x, mix(clean, poisoned, 0.25, seed).x)


def results(store: Store, stages: tuple[Stage, ...]) -> dict[str, object]:
    """Everything that must be equal between two runs of one plan."""
    found: dict[str, object] = {}
    for stage in stages:
        if stage.kind == "train":
            record = store.record(stage.key)
            found[stage.label] = (
                record.test_acc,
                record.train_acc,
                record.curve,
                record.loss_curve,
                record.artifacts,
                record.facts,
            )
        else:
            found[stage.label] = store.manifest(stage.key)["files"]
    return found


@pytest.mark.e2e
def test_same_plan_same_numbers_and_bytes_inline_and_in_workers(bench: Bench) -> None:
    bench.method("shade", SHADE)
    axes: dict[str, Any] = {
        "attacks": ["shade", "lsp[patch=4]"],
        "defenses": ["none", "jpeg", "at"],
        "parameters": {"at": {"steps": 1, "step": 8 / 255}},
    }
    stages = bench.plan(**axes).stages
    found = []
    for executor, place in (("inline", "first"), ("inline", "second"), ("local", "third")):
        store = Store(bench.work / place)
        outcome = bench.run(store, executor, **axes)
        assert (outcome.done, outcome.failed) == (len(stages), 0), outcome.failures
        found.append(results(store, stages))
    assert found[0] == found[1]
    assert found[0] == found[2]


def test_a_poison_that_is_gone_is_made_again_for_a_new_cell(bench: Bench) -> None:
    bench.run(attacks="lsp", defenses="grayscale")
    poison = next(
        stage.key
        for stage in bench.plan(attacks="lsp", defenses="grayscale").stages
        if stage.kind == "poison"
    )
    shutil.rmtree(bench.store.root / "artifacts" / poison[:2] / poison)
    outcome = bench.run(attacks="lsp", defenses="grayscale", seeds=5)
    assert (outcome.done, outcome.failed) == (
        2,
        0,
    )  # the poison and the training; the purified images are there


def test_notes_that_are_not_finite_become_text(bench: Bench) -> None:
    lines = ("ctx.note(psnr=float('inf'))", "return data.map(lambda x: x ^ 1)")
    body = "\n        ".join(("def poison(self, data, ctx):", *lines))
    bench.method("mine", one_method("attack", body, norm="none"))
    (record,) = bench.records(attacks="mine").values()
    assert record.facts["poison"]["psnr"] == "inf"
