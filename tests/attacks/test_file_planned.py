"""The attack that reads files, inside the harness: export and back, bounds, contract, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.file import File
from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.contract import check_method
from benchmark.data import Splits
from benchmark.datasets._open import open_dataset
from benchmark.planning.jobs import PoisonJob, TrainJob
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import Suite, resolve_suite
from benchmark.running.scheduler.run import run_plan
from benchmark.running.verify import verify_poison
from benchmark.storage.export import export
from benchmark.storage.files import sha256
from support.command_line import Call
from support.perturbation_files import (  # noqa: F401  two are fixtures
    Array,
    added,
    poisoned,
    save,
    some_changes,
    some_images,
)
from support.tiny_bench import Bench

# The harness around it


@pytest.mark.parametrize("form", ["pt", "npz"])
def test_what_export_writes_comes_back_byte_for_byte(
    form: str, data: ImageSet, delta: Array, tmp_path: Path
) -> None:
    protected = data.with_x(added(data, 5 * delta))
    export(tmp_path / "out", form, protected, Splits(data, data), {})
    path = str(tmp_path / "out" / {"pt": "perturbation.pt", "npz": "images.npz"}[form])
    assert torch.equal(poisoned(data, path)[0], protected.x)
    if form == "npz":
        assert torch.equal(poisoned(data, path, array="images")[0], protected.x)


def test_a_poison_that_was_written_is_the_same_poison_again(bench: Bench, tmp_path: Path) -> None:
    """Through plan, stages and store, as the command ``poison`` does it."""

    def poison(attack: str) -> ImageSet:
        stage, _ = bench.plan(attacks=attack).stages
        assert (
            run_plan(
                [stage], bench.store, bench.machine, executor="inline", display="none"
            ).exit_code
            == 0
        )
        return bench.store.load_images(stage.key)

    source = open_dataset(
        Spec("folder", {"path": str(bench.images), "size": 16}), bench.data_root, bench.registry
    )
    first = poison("lsp[patch=4]")
    export(tmp_path / "out", "pt", first, source, {})
    assert (
        poison(f"file[path={tmp_path}/out/perturbation.pt]").fingerprint
        == first.fingerprint
        != source.train.fingerprint
    )


def test_the_command_line_tells_a_missing_file_before_the_work(call: Call, images: Path) -> None:
    missing = call(
        "poison",
        "file[path=nowhere.pt]",
        "--dataset",
        f"folder[path={images},size=16]",
        "--out",
        "third",
    )
    assert missing.code == 2
    assert (
        "error: nowhere.pt does not exist; a path that does not start with / is looked up from"
        in missing.err
    )


def test_a_bound_is_verified_after_rounding(data: ImageSet, delta: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "delta.npy", delta)
    free, bounded, tight = (
        File(path=path),
        File(path=path, eps=8 / 255),
        File(path=path, eps=7 / 255),
    )
    result = free.poison(data, Context())
    assert (free.norm, bounded.norm, File.declared_norm) == ("none", "linf", "none")
    verify_poison(data, result, free)
    verify_poison(data, result, bounded)
    with pytest.raises(
        ValueError, match=r"breaks its budget: .* L-inf 8\.0/255, allowed L-inf 7\.5/255"
    ):
        verify_poison(data, result, tight)


@pytest.mark.parametrize("eps", [0.0, 8 / 255])
def test_the_contract_is_kept_with_a_file(eps: float, tmp_path: Path, registry: Registry) -> None:
    path = save(
        tmp_path / "delta.npy",
        np.random.default_rng(0).integers(-8, 9, (10, 3, 32, 32)).astype(np.int8),
    )
    results = check_method("attack", "file", registry, {"path": path, "eps": eps})
    assert [result.detail for result in results if not result.passed] == []
    assert [result.name for result in results] == [
        "build",
        "card",
        "documentation",
        "units",
        "poison",
        "seed",
    ]


def test_without_a_file_the_contract_is_checked_in_part(registry: Registry) -> None:
    results = check_method("attack", "file", registry)
    assert [(result.name, result.passed) for result in results] == [
        ("build", True),
        ("card", True),
        ("documentation", True),
    ]
    assert results[0].detail == (
        "not built, since it needs path and toy does not say; "
        "only its card and documentation are checked"
    )


# Keys


def keys(registry: Registry, *attacks: str, **more: Any) -> dict[str, str]:
    """Attack -> key of its poison."""
    suite = Suite(
        name="s",
        datasets=("embedded",),
        attacks=attacks,
        defenses=("none", "grayscale"),
        protocols=("quick",),
    )
    plan = make_plan(resolve_suite(suite, registry), registry, str, "fp32", **more)
    return {
        str(stage.job.attack.spec): stage.key
        for stage in plan.stages
        if isinstance(stage.job, PoisonJob)
    }


def test_the_content_of_a_file_is_in_the_key(
    registry: Registry, delta: Array, tmp_path: Path
) -> None:
    save(tmp_path / "a.npy", delta)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    a, b = f"file[path={tmp_path}/a.npy]", f"file[path={tmp_path}/b.npy]"
    first = keys(registry, a)[a]
    assert keys(registry, b)[b] == first  # moved or renamed: the same
    assert keys(registry, f"file[path={tmp_path}/a.npy,kind=delta]").popitem()[1] != first
    save(tmp_path / "a.npy", delta + 1)
    assert keys(registry, a)[a] != first


def test_the_content_of_the_index_map_is_in_the_key(
    registry: Registry, delta: Array, tmp_path: Path
) -> None:
    path, index = save(tmp_path / "a.npy", delta), save(tmp_path / "i.npy", np.arange(40))
    spec = f"file[path={path},index={index}]"
    first = keys(registry, spec)[spec]
    save(tmp_path / "i.npy", np.arange(40)[::-1])
    assert keys(registry, spec)[spec] != first


def test_a_file_is_read_once_a_plan_and_named_in_the_record(registry: Registry) -> None:
    asked: list[str] = []

    def content(path: str) -> str:
        asked.append(path)
        return f"content of {path}"

    attacks = ("none", "file[path=a.pt]+ops", "file[path=b.pt,index=c]")
    suite = Suite(
        name="s",
        datasets=("embedded",),
        attacks=attacks,
        defenses=("none", "grayscale"),
        protocols=("quick",),
    )
    plan = make_plan(resolve_suite(suite, registry), registry, str, "fp32", content)
    assert asked == ["a.pt", "b.pt", "c"]
    specs = [
        stage.job.record(stage.key).attack_spec
        for stage in plan.stages
        if isinstance(stage.job, TrainJob)
    ]
    assert len(specs) == 6
    assert specs[2]["files"] == {"path": "content of a.pt"}
    assert specs[2]["params"]["path"] == "a.pt"
    assert specs[4]["files"] == {"path": "content of b.pt", "index": "content of c"}
    assert all("files" not in spec for spec in (specs[0], specs[2]["then"]))


def test_a_missing_file_is_told_when_planning(registry: Registry) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
        keys(registry, "file[path=nowhere.pt]")


def test_a_file_that_changes_after_planning_is_refused(bench: Bench, tmp_path: Path) -> None:
    save(tmp_path / "delta.npy", np.ones((2, 3, 16, 16), np.int8))
    attack = f"file[path={tmp_path}/delta.npy]"
    plan = bench.plan(attacks=attack)
    save(tmp_path / "delta.npy", np.full((2, 3, 16, 16), 2, np.int8))
    outcome = run_plan(
        plan.stages[:1], bench.store, bench.machine, executor="inline", display="none"
    )
    assert (
        f"{tmp_path}/delta.npy changed since this run was planned; run again"
        in outcome.failures[0].error
    )
    stage = bench.plan(attacks=attack).stages[0]
    assert (
        run_plan([stage], bench.store, bench.machine, executor="inline", display="none").exit_code
        == 0
    )
    facts = bench.store.manifest(stage.key)["facts"]
    assert (facts["positive_only"], facts["highest"], facts["linf"]) == (
        True,
        2.0,
        pytest.approx(2 / 255),
    )


def test_files_that_are_no_parameters_are_told(tmp_path: Path) -> None:
    source = (
        'from benchmark import Attack, attack\n\n@attack(version=1, cite="x", files=("pat",))\n'
        'class Mine(Attack):\n    """Mine."""\n'
    )
    (tmp_path / "mine.py").write_text(source + "    path: str\n")
    registry = Registry((tmp_path / "mine.py",))
    with pytest.raises(ValueError, match="files of class Mine names pat, which is no parameter"):
        registry.resolve("attack", Spec("mine", {"path": "a"}))


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ('("stpes",)', "later of class Mine names stpes, which is no parameter"),
        (
            '("steps", "path")',
            "later of class Mine names path, which is required, a file or decides "
            "a surrogate's training",
        ),
    ],
)
def test_parameters_that_cannot_come_later_are_told(
    later: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        f'from benchmark import Attack, attack\n\n@attack(version=1, cite="x", later={later})\n'
        'class Mine(Attack):\n    """Mine."""\n    path: str\n    steps: int = 1\n'
    )
    with pytest.raises(ValueError, match=message):
        Registry((tmp_path / "mine.py",)).resolve("attack", Spec("mine", {"path": "a"}))


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        sha256(str(tmp_path / "a"))
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
