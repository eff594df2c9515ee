"""What the reference asks of each attack of a kind: T2, T3, T4 and T8.

That is: images one by one, one change a class, signs, and going on after a kill. What it asks of
all attacks (T1, the budget of T2, T6 and T7: budget, order, labels, the same bytes for the same
seed) is in ``benchmark/contract/check.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmark import Attack, Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import parse_spec
from benchmark.contract import toy_set
from benchmark.data import at_once
from benchmark.training import checkpoint as resume
from benchmark.training import surrogate

pytestmark = pytest.mark.contract

ROUNDS = {  # attacks that work in rounds, with as many as show it
    "em": "em[max_rounds=4,stop_error=-1.0]",
    "em, class-wise": "em[granularity=class,max_rounds=4,stop_error=-1.0]",
    "aue": "aue[epochs=4]",
    "aue, class-wise": "aue[granularity=class,epochs=4]",
    "rem": "rem[steps=4]",
    "sem": "sem[steps=4]",
    "tap": "tap[steps=4]",
    "aap": "aap[steps=4]",
    "hypo": "hypo[steps=4]",
    "sep": "sep[steps=4]",
    "ntga": "ntga[steps=3]",
}


@pytest.fixture(autouse=True)
def _untrained_surrogates_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "LEARNED", -math.inf)


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return toy_set(classes=3, per_class=8, size=16)


def built(text: str) -> Attack:
    registry, spec = Registry(), parse_spec(text)
    toy = dict(registry.load("attack", spec.name).toy)
    method: Attack = registry.build(
        "attack", registry.resolve("attack", spec.with_params({**toy, **spec.params}))
    )
    return method


def context(name: str, scratch: Path | None = None) -> Context:
    return Context(seed_axes=("contract", name), scratch=scratch)


def free(data: ImageSet, made: ImageSet) -> tuple[Tensor, Tensor]:
    """The change in levels, and where black and white could not have cut it."""
    return made.x.int() - data.x.int(), (data.x >= 16) & (data.x <= 239)


@pytest.mark.parametrize("name", ["lsp", "ops", "ar", "cuda"])
def test_how_many_images_are_handled_at_once_changes_no_byte(
    name: str, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T2, of attacks that labels alone drive."""
    whole = built(name).poison(data, context(name))
    monkeypatch.setattr("benchmark.data.CHUNK", 5 * data.info.size)
    assert at_once(data.x) == 5
    assert built(name).poison(data, context(name)).fingerprint == whole.fingerprint


@pytest.mark.parametrize("name", ROUNDS)
def test_noise_by_gradients_has_both_signs_in_like_parts(name: str, data: ImageSet) -> None:
    """T4. EM's published storage lost the negative half."""
    change, uncut = free(data, built(ROUNDS[name]).poison(data, context(name)))
    moved = change[uncut & (change != 0)]
    assert len(moved) > 1000
    assert 0.35 < float((moved < 0).float().mean()) < 0.65


@pytest.mark.parametrize("name", [name for name in ROUNDS if "class-wise" in name])
def test_class_wise_noise_is_one_change_a_class(name: str, data: ImageSet) -> None:
    """T3, where black and white do not cut it."""
    change, uncut = free(data, built(ROUNDS[name]).poison(data, context(name)))
    of_class = []
    for label in range(data.info.num_classes):
        mine, seen = change[data.y == label], uncut[data.y == label]
        shared = torch.where(seen, mine, torch.full_like(mine, -1000)).amax(0)
        assert torch.equal(torch.where(seen, mine, shared), shared.expand_as(mine))
        of_class.append(shared)
    assert all(not torch.equal(a, b) for i, a in enumerate(of_class) for b in of_class[:i])


@pytest.mark.parametrize("name", ROUNDS)
def test_a_run_that_was_killed_twice_goes_on_to_the_same_bytes(
    name: str, data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T8. It dies just after it kept a state, and the next run keeps what is left to keep."""
    attack, real = built(ROUNDS[name]), resume.Checkpoint.save
    saved, deadly = [0], [False]

    def save(
        kept: resume.Checkpoint, done: int, tensors: Mapping[str, Tensor], now: bool = False
    ) -> None:
        real(kept, done, tensors, now)
        saved[0] += 1
        if deadly[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resume.Checkpoint, "save", save)
    (tmp_path / "whole").mkdir()
    whole, all_saved = attack.poison(data, context(name, tmp_path / "whole")), saved[0]
    deadly[0] = True
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            attack.poison(data, context(name, tmp_path))
    saved[0], deadly[0] = 0, False
    assert attack.poison(data, context(name, tmp_path)).fingerprint == whole.fingerprint
    assert saved[0] == all_saved - 2
