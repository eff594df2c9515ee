"""Every attack on 224-pixel images and a hundred classes, with small surrogates and few steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from attacks import _min_min, _robust_min
from benchmark import Context
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.contract import toy_set
from benchmark.running.verify import verify_poison
from benchmark.training import surrogate
from support.counting_net import build_counting_net

ATTACKS = [name for name in Registry().cards("attack") if name not in ("none", "file")]
SETS = {
    "224 pixels": {"classes": 3, "per_class": 4, "size": 224},
    "100 classes": {"classes": 100, "per_class": 2},
}


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.usefixtures("small_nets")
def test_poisons_are_within_the_budget(
    name: str, which: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_min_min, _robust_min):
        monkeypatch.setattr(module, "build_victim", build_counting_net)
    cls: Any = registry.load("attack", name)
    attack = registry.build("attack", registry.resolve("attack", Spec(name, cls.toy)))
    monkeypatch.setattr(
        surrogate, "LEARNED", -math.inf
    )  # a few steps do not teach a hundred classes
    data = toy_set(**SETS[which])
    facts = verify_poison(data, attack.poison(data, Context(scratch=tmp_path)), attack)
    assert facts["changed"] == 1.0
