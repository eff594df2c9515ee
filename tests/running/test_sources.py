"""Sources: a record names every file of the project that its number depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.catalogue.registry import ROOT, Registry
from benchmark.planning.jobs import Job
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import Suite, resolve_suite
from benchmark.running.sources import CORE, reached, sources
from benchmark.storage.files import sha256

EVERY = {  # of each stage, whatever its methods
    "benchmark/api.py",
    "benchmark/catalogue/protocol.py",
    "benchmark/data.py",
    "benchmark/datasets/_cache.py",
    "benchmark/datasets/_listing.py",
    "benchmark/datasets/_open.py",
    "benchmark/datasets/embedded.py",
    "benchmark/keys.py",
    "benchmark/planning/jobs.py",
    "benchmark/running/craft.py",
    "benchmark/running/deterministic.py",
    "benchmark/running/global_random.py",
    "benchmark/running/stages.py",
    "benchmark/training/crop.py",
    "benchmark/training/loader.py",
    "benchmark/training/schedule.py",
    "benchmark/training/surrogate.py",
    "benchmark/training/train.py",
}
EM = {
    "attacks/_min_min.py",
    "attacks/em.py",
    "benchmark/training/ball.py",
    "benchmark/training/checkpoint.py",
    "benchmark/training/disk_tensor.py",
    "benchmark/training/gradients.py",
}
DVAE = {"defenses/_rate_vae.py", "defenses/dvae.py"}


def jobs(registry: Registry, attack: str, defense: str) -> dict[str, Job]:
    """Kind -> job, of a cell on the embedded images."""
    suite = Suite(
        name="s", attacks=(attack,), defenses=(defense,), victims=("resnet10_w16",), seeds=(1,)
    )
    plan = make_plan(resolve_suite(suite, registry), registry, lambda spec: "f" * 64, "fp32")
    return {stage.kind: stage.job for stage in plan.stages}


def test_sources_are_followed_through_imports(registry: Registry) -> None:
    found = jobs(registry, "em[surrogate=resnet18]", "dvae")
    networks = {"benchmark/victims/_resnet.py", "benchmark/victims/resnet18.py"}
    victim = {"benchmark/victims/_resnet.py", "benchmark/victims/resnet10_w16.py"}
    assert set(sources(found["poison"], registry)) == EVERY | EM | networks
    assert set(sources(found["purify"], registry)) == EVERY | DVAE
    made = sources(found["train"], registry)
    assert set(made) == EVERY | EM | DVAE | networks | victim
    assert made == {name: sha256(str(ROOT / name)) for name in made}
    assert list(made) == sorted(made)


def test_data_files_of_a_module_are_sources(registry: Registry) -> None:
    found = sources(jobs(registry, "ar", "none")["poison"], registry)
    assert {"attacks/_ar_kernels.py", "attacks/_ar_kernels.json"} <= set(found)


def test_a_plugin_is_named_by_its_file_and_what_it_imports_counts(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        '''
from typing import TYPE_CHECKING

from benchmark import Attack, Checkpoint, attack
from benchmark.storage.files import given_file

if TYPE_CHECKING:
    from attacks import _ntk

@attack(version=1, cite="nobody")
class Mine(Attack):
    """Borrow."""

    def poison(self, data, ctx):
        import attacks._eot
        return data
''',
        encoding="utf-8",
    )
    registry = Registry((plugin,))
    found = sources(jobs(registry, "mine", "none")["poison"], registry)
    # checkpoint.py through the package's own imports; not files.py, which decides no number
    assert set(found) - EVERY == {"mine.py", "attacks/_eot.py", "benchmark/training/checkpoint.py"}
    assert found["mine.py"] == sha256(str(plugin))


@pytest.mark.parametrize("folder", ["attacks", "defenses"])
def test_every_helper_of_methods_is_reached_from_one(folder: str) -> None:
    files = set((ROOT / folder).glob("*.py"))
    methods = {file for file in files if not file.name.startswith("_")}
    found = {file for file in reached(tuple(methods)) if file.suffix == ".py"}
    assert {file for file in found if file.parent.name == folder} == (
        files - {ROOT / folder / "__init__.py"}
    )


def test_nothing_that_only_stores_plans_or_shows_is_a_source() -> None:
    rooms = {file.relative_to(ROOT).as_posix() for file in reached((ROOT / CORE,))}
    assert rooms <= EVERY
