"""Keys hold the code of plugins: after an edit, the old number does not come back as cached."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.planning.jobs import Victim
from benchmark.planning.plan import Plan
from support.tiny_bench import HEAD, PURIFY, SHADE, Bench, one_method

NET = '''
"""A small network."""
from torch import nn

def build(info):
    """One layer on an image averaged down to {side}x{side} pixels."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d({side}),
        nn.Flatten(),
        nn.Linear(info.channels * {side} ** 2, info.num_classes),
    )
'''
STILL = one_method("defense", PURIFY + "return data")
WIGGLE = one_method("defense", "def augment(self, x, y, ctx):\n        return x * {share}, y")
IMAGES = '''
import torch
from benchmark import Dataset, DatasetInfo, ImageSet, Splits, dataset

@dataset(version=1, cite="nobody")
class Grey(Dataset):
    """Images of one grey each."""

    def load(self, root, ctx, download=False):
        info = DatasetInfo("grey", 2, ("a", "b"), 3, 16, 16, hflip=True)
        y = torch.arange(20) % 2
        x = (y * {step}).to(torch.uint8).view(-1, 1, 1, 1).expand(20, 3, 16, 16).contiguous()
        return Splits(ImageSet(x, y, info), ImageSet(x[:4], y[:4], info))
'''
NEEDY = (
    HEAD
    + '''
@attack(version=1, cite="nobody", trained_surrogate={trained})
class Needy(Attack):
    """Take a network, trained by a stage of its own or not."""
    eps: float = 8 / 255
    surrogate: str = "net"
    surrogate_protocol: str = "quick"
    surrogate_epochs: int = 1

    def poison(self, data, ctx):
        return data
'''
)


def counts(bench: Bench, **axes: Any) -> tuple[int, int, int]:
    """Stages done, cached and failed by one more run."""
    outcome = bench.run(**axes)
    return outcome.done, outcome.cached, outcome.failed


@pytest.mark.parametrize(
    ("name", "before", "after", "axes", "stages", "again"),
    [
        ("net", NET.format(side=1), NET.format(side=4), {"victims": "net"}, 2, 1),
        ("shade", SHADE, SHADE + "\n# as good as new\n", {"attacks": "shade"}, 2, 2),
        ("mine", STILL, STILL.replace("return data", "return data.map(lambda x: x)"), None, 3, 2),
        ("mine", WIGGLE.format(share=1), WIGGLE.format(share=0.5), None, 2, 1),
    ],
    ids=["victim", "attack", "defense that purifies", "defense while training"],
)
def test_what_an_edited_plugin_decides_is_computed_again(
    name: str,
    before: str,
    after: str,
    axes: dict[str, Any] | None,
    stages: int,
    again: int,
    bench: Bench,
) -> None:
    axes = axes or {"defenses": name}
    bench.method(name, before)
    assert counts(bench, **axes) == (stages, 0, 0)
    assert counts(bench, **axes) == (0, stages, 0)
    bench.edit(name, after)
    assert counts(bench, **axes) == (again, stages - again, 0)
    bench.edit(name, before)  # the results of the first form are still there
    assert counts(bench, **axes) == (0, stages, 0)


def test_an_edited_data_set_is_decoded_again(bench: Bench, tmp_path: Path) -> None:
    bench.data_root = tmp_path / "data"
    bench.method("grey", IMAGES.format(step=100))
    assert counts(bench, datasets="grey") == (2, 0, 0)
    assert counts(bench, datasets="grey") == (0, 2, 0)
    bench.edit("grey", IMAGES.format(step=200))
    assert counts(bench, datasets="grey") == (2, 0, 0)
    bench.edit("grey", IMAGES.format(step=200) + "\n# the same images\n")
    assert counts(bench, datasets="grey") == (0, 2, 0)


def keys(plan: Plan) -> dict[str, str]:
    return {stage.kind: stage.key for stage in plan.stages}


@pytest.mark.parametrize(
    ("trained", "moved"),
    [
        ("()", {"poison", "train"}),
        (
            '("surrogate", "surrogate_protocol", "surrogate_epochs")',
            {"surrogate", "poison", "train"},
        ),
    ],
    ids=["untrained", "trained"],
)
def test_the_code_of_a_surrogate_is_in_the_keys_of_its_attack(
    trained: str, moved: set[str], bench: Bench
) -> None:
    bench.method("net", NET.format(side=1))
    bench.method("needy", NEEDY.format(trained=trained))
    before = keys(bench.plan(attacks="needy"))
    bench.edit("net", NET.format(side=4))
    after = keys(bench.plan(attacks="needy"))
    assert set(before) == set(after) == moved
    assert all(before[kind] != after[kind] for kind in moved)


def test_a_victims_version_is_in_the_key_from_the_second_on(bench: Bench) -> None:
    assert Victim("net").identity() == "net"
    assert Victim("net", 2).identity() == {"name": "net", "version": 2}
    bench.method("net", "VERSION = 1\n" + NET.format(side=1))
    first = bench.plan(victims="net").stages[-1].job
    bench.edit("net", "VERSION = 2\n" + NET.format(side=1))
    second = bench.plan(victims="net").stages[-1].job
    assert first.identity()["victim"].keys() == {"name", "version", "content"}
    assert (first.identity()["victim"]["version"], second.identity()["victim"]["version"]) == (1, 2)


def test_a_plugin_that_changes_after_planning_is_refused(bench: Bench) -> None:
    """A worker reads the file anew; it would publish the new code's number under the old key."""
    bench.method("net", NET.format(side=1))
    stages = bench.plan(victims="net").stages
    bench.edit("net", NET.format(side=4))
    outcome = bench.run_stages(stages)
    assert outcome.failed == 1
    assert outcome.failures[0].error == (
        f"ValueError: {bench.plugins[0]} changed since this run was planned; run again"
    )


def noted(bench: Bench, defense: str) -> list[int]:
    """The number that each purified set was made with, in the order of its making."""
    counts(bench, defenses=defense)
    records = sorted(bench.store.records(), key=lambda record: record.facts["purify"]["k"])
    return [record.facts["purify"]["k"] for record in records]


def test_the_new_code_runs_whatever_python_has_cached(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two forms of one size and one time of change: Python's compiled files cannot tell them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    source = one_method("defense", PURIFY + "ctx.note(k={k})\n        return data")
    bench.method("mine", source.format(k=1))
    os.utime(bench.work / "mine.py", (1e9, 1e9))
    assert noted(bench, "mine") == [1]
    bench.edit("mine", source.format(k=2))
    os.utime(bench.work / "mine.py", (1e9, 1e9))
    assert noted(bench, "mine") == [1, 2]


def test_a_file_beside_a_plugin_counts_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(bench.work)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # of the worker
    helper = bench.work / "mine_helper.py"
    helper.write_text("K = 1\n")
    os.utime(helper, (1e9, 1e9))
    source = one_method("defense", PURIFY + "ctx.note(k=K)\n        return data")
    bench.method("mine", "from mine_helper import K\n" + source)
    assert noted(bench, "mine") == [1]
    (record,) = bench.store.records()
    assert {"mine.py", "mine/mine_helper.py"} <= set(record.sources)
    assert counts(bench, defenses="mine") == (0, 3, 0)
    helper.write_text("K = 2\n")
    os.utime(helper, (1e9, 1e9))
    outcome = bench.run(defenses="mine")  # Python would give the module that it imported before
    assert "mine_helper.py changed since this process imported it" in outcome.failures[0].error
    outcome = bench.run(defenses="mine", executor="local")
    assert (outcome.done, outcome.cached, outcome.failed) == (2, 1, 0)
    assert sorted(record.facts["purify"]["k"] for record in bench.store.records()) == [1, 2]
