"""NTGA: the attack on the kernel machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import benchmark.training.checkpoint
from attacks._ntk import KernelMachine
from attacks.ntga import NTGA
from benchmark import Context, ImageSet
from benchmark.data import to_float
from support.sets import random_set
from support.small_ntga import (  # noqa: F401  one is a fixture
    EPS,
    KERNELS,
    SMALL,
    faint_set,
    floats,
    machine_of,
    small_images,
)

# The attack


@pytest.fixture(scope="module")
def poisoned(images: ImageSet) -> tuple[ImageSet, Context]:
    ctx = Context(seed_axes=("ntga", 0))
    return SMALL.poison(images, ctx), ctx


def delta_of(clean: ImageSet, poisoned: ImageSet) -> Tensor:
    return poisoned.x.int() - clean.x.int()


def test_every_block_is_of_other_images_than_those_held_out_for_it(images: ImageSet) -> None:
    work, order = SMALL._work(images, Context())
    assert order.sort().values.tolist() == list(range(40))
    assert [len(block) for block, _ in work] == [16, 16, 8]  # 32 and the 8 held out
    assert torch.equal(torch.cat([block for block, _ in work]), order)
    for block, held_out in work:
        assert len(held_out) == 8
        assert not set(block.tolist()) & set(held_out.tolist())
    assert torch.equal(work[0][1], order[32:])
    few, _ = replace(SMALL, validation_images=3)._work(images, Context())
    assert [
        torch.equal(held_out, whole[:3])
        for (_, held_out), (_, whole) in zip(few, work, strict=True)
    ] == [True] * 3


def test_blocks_are_of_equal_size() -> None:
    work, _ = NTGA(cover="train")._work(random_set(50_000, 10, 1, 1, 1), Context())
    assert len(work) == 79
    assert {len(block) for block, _ in work} == {506, 507}
    assert {len(held_out) for _, held_out in work} == {10_000}


def test_budget_holds_and_every_image_changes(
    images: ImageSet, poisoned: tuple[ImageSet, Context]
) -> None:
    delta = delta_of(images, poisoned[0])
    assert int(delta.abs().max()) == 8
    assert bool((delta != 0).flatten(1).any(1).all())
    assert 0.4 < float((delta[delta != 0] < 0).double().mean()) < 0.6
    assert torch.equal(poisoned[0].y, images.y)


@pytest.mark.parametrize("kernel", ["cnn", "fnn"])
def test_what_is_learned_from_a_block_no_longer_holds(kernel: str) -> None:
    clean, ctx, attack = faint_set(), Context(), NTGA(kernel=kernel, block=24, steps=3, t=4096.0)
    poisoned = attack.poison(clean, ctx)
    work, _ = attack._work(clean, ctx)
    facts = []
    for block, held_out in work:
        y = clean.y[held_out]
        logits = [
            machine_of(attack, data, block).predict(clean.x[held_out]) for data in (clean, poisoned)
        ]
        facts.append(
            [
                *(float(F.cross_entropy(values, y)) for values in logits),
                *(float((values.argmax(1) == y).double().mean()) for values in logits),
            ]
        )
    assert all(
        loss_after > loss and acc_after < acc - 0.3 for loss, loss_after, acc, acc_after in facts
    )
    names = ("loss_clean", "loss_protected", "acc_clean", "acc_protected")
    means = [sum(values) / len(work) for values in zip(*facts, strict=True)]
    assert [ctx.notes[f"validation_{name}"] for name in names] == pytest.approx(
        means, abs=0.01
    )  # the notes are of images before rounding
    assert (ctx.notes["blocks"], ctx.notes["validation_images"]) == (3, 12)


def climbed(attack: NTGA, data: ImageSet, starts: int, step: float) -> Tensor:
    """The bytes that ``starts`` sign steps lead to, block by block."""
    out = data.x.clone()
    for block, held_out in attack._work(data, Context())[0]:
        x = clean = to_float(data.x[block])
        for _ in range(starts):
            gradient, _ = attack._machine(x, data.y[block], data.info).gradient(
                data.x[held_out], data.y[held_out]
            )
            x = clean + (x + step * gradient.sign()).clamp(0, 1).sub(clean).clamp(-EPS, EPS)
        out[block] = (x * 255).round().to(torch.uint8)
    return out


def test_official_is_one_step_of_the_whole_budget(images: ImageSet) -> None:
    result = replace(SMALL, mode="official").poison(images, Context())
    assert torch.equal(result.x, climbed(SMALL, images, 1, EPS))
    delta = delta_of(images, result)
    clipped = (result.x == 0) | (result.x == 255)
    assert bool((delta.abs() == 8)[~clipped].all())  # no gradient is 0 here
    assert bool((delta != 0)[(images.x > 0) & (images.x < 255)].all())


def test_iterated_goes_on_from_the_moved_images(images: ImageSet) -> None:
    result = SMALL.poison(images, Context())
    assert (result.x.int() - climbed(SMALL, images, 2, 1.1 * EPS / 2).int()).abs().max() <= 1
    assert bool((result.x == climbed(SMALL, images, 2, 1.1 * EPS / 2)).double().mean() > 0.999)
    assert (
        result.fingerprint != replace(SMALL, mode="official").poison(images, Context()).fingerprint
    )


def test_cover_train_leaves_the_held_out_images_clean_and_says_so(
    images: ImageSet, poisoned: tuple[ImageSet, Context]
) -> None:
    ctx = Context(seed_axes=("ntga", 0))
    result = replace(SMALL, cover="train").poison(images, ctx)
    order, covered = ctx.kept["split"]["order"], ctx.kept["split"]["covered"]
    assert (ctx.notes["coverage"], ctx.notes["blocks"]) == (0.8, 2)
    assert sorted(order[:32].tolist()) == covered.nonzero().flatten().tolist()
    assert torch.equal((delta_of(images, result) != 0).flatten(1).any(1), covered)
    whole, whole_ctx = poisoned
    assert torch.equal(
        result.x[covered], whole.x[covered]
    )  # the second pass changes nothing of the first
    assert bool(whole_ctx.kept["split"]["covered"].all())
    assert whole_ctx.notes["coverage"] == 1.0


def test_input_order_is_kept(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images given in another order, dealt the same, come out the same, each in its place."""
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    result = SMALL.poison(images, Context())
    work, order = SMALL._work(images, Context())
    place = shuffle.argsort()
    moved = [(place[block], place[held_out]) for block, held_out in work], place[order]
    monkeypatch.setattr(NTGA, "_work", lambda self, data, ctx: moved)
    assert torch.equal(SMALL.poison(images.select(shuffle), Context()).x, result.x[shuffle])


def test_a_killed_run_goes_on_to_the_same_bytes(
    images: ImageSet,
    poisoned: tuple[ImageSet, Context],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark.training.checkpoint, "SAVE_EVERY", 0)
    calls: list[int] = []
    gradient = KernelMachine.gradient

    def dying(self: KernelMachine, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return gradient(self, x, y)

    monkeypatch.setattr(KernelMachine, "gradient", dying)
    with pytest.raises(KeyboardInterrupt):
        SMALL.poison(images, Context(seed_axes=("ntga", 0), scratch=tmp_path))
    ctx = Context(seed_axes=("ntga", 0), scratch=tmp_path)
    resumed = SMALL.poison(images, ctx)
    assert len(calls) == 4 + 4  # the first of three blocks is not done again
    assert resumed.fingerprint == poisoned[0].fingerprint
    assert ctx.notes == poisoned[1].notes


def test_one_channel_a_missing_class_and_odd_sides() -> None:
    data = random_set(11, 3, channels=1, height=9, width=5)
    data = data.select((data.y != 1).nonzero().flatten())
    result = NTGA(steps=1, holdout=0.5).poison(data, Context())
    assert int(delta_of(data, result).abs().max()) == 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"kernel": "resnet"}, 'kernel="resnet", expected cnn or fnn'),
        ({"mode": "pgd"}, "expected iterated or official"),
        ({"cover": "test"}, "expected all or train"),
        ({"steps": 0}, "at least 1"),
        ({"block": 0}, "at least 1"),
        ({"validation_images": -1}, "at least 0"),
        ({"t": math.inf}, "t=inf, expected at least 0 .*in gradient steps"),
        ({"holdout": 1.0}, "holdout=1, expected 0 < holdout < 1"),
    ],
)
def test_bad_parameters(parameters: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NTGA(**parameters)  # type: ignore[arg-type]


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        NTGA().poison(random_set(1, 2), Context())
