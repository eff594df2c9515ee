"""Keys of the project's own methods do not move: they name results on people's disks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import Suite, resolve_suite

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "keys.json").read_text("utf-8"))
ATTACKS = ("none", "aap", "aue", "cuda", "em", "em[granularity=class]", "em+ops+lsp", "hypo")
ATTACKS += ("lsp", "ntga", "ops", "rem", "sem", "sep", "tap")
DEFENSES = ("none", "at", "bdr", "blur", "dvae", "grayscale", "jpeg", "vae")


@pytest.mark.parametrize(
    ("attacks", "defenses"),
    [(ATTACKS, ("none",)), (("em",), DEFENSES)],
    ids=("attacks", "defenses"),
)
def test_keys_of_the_projects_methods_stay_as_they_are(
    attacks: tuple[str, ...], defenses: tuple[str, ...], registry: Registry
) -> None:
    """A method that is given another version gets new keys here, and no other method does.

    If a key moves without a new version, undo the change, or raise CORE_VERSION on purpose.
    """
    suite = Suite(
        name="golden",
        datasets=("cifar10[train_per_class=100]",),
        attacks=attacks,
        defenses=defenses,
        victims=("resnet18",),
        protocols=("std60",),
        ratios=(0.5,),
        craft_seed=1,
        seeds=(2,),
        precision="fp32",
    )
    plan = make_plan(resolve_suite(suite, registry), registry, lambda spec: "0" * 64, "bf16")
    found = {stage.label: stage.key[:16] for stage in plan.stages}
    assert found == {label: GOLDEN[label] for label in found}
    assert len(found) == len(plan.stages)
