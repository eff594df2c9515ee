"""The shared engine of attacks on frozen models.

Steps are exact, chunks do not matter, the best restart is kept, and a killed run goes on.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import _descent
from attacks._descent import (
    Chunk,
    check_shift,
    craft,
    cross_entropy,
    descend,
    gradient_of,
    targets,
)
from attacks._l2 import rounded_within
from attacks.hypo import Hypo
from attacks.sep import SEP
from attacks.tap import TAP
from benchmark import Attack, Context, ImageSet
from benchmark.data import L2_AIM, to_float, to_uint8
from benchmark.running.verify import verify_poison
from benchmark.training import surrogate
from benchmark.training.ball import Ball
from support.counting_net import build_counting_net
from support.sets import random_set

LINF = Ball("linf", 8 / 255)
PLACE = torch.linspace(-1, 1, 192).view(3, 8, 8)  # a gradient that differs from pixel to pixel


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 7 * 64)


def whole(data: ImageSet) -> Chunk:
    return Chunk("restart 0 chunk 0", to_float(data.x), data.y, lambda share: None)


def downhill(chunk: Chunk) -> Tensor:
    """Three steps whose direction depends on the image, its label and the step."""
    return descend(
        chunk, lambda x, step: x - 0.1 * chunk.y.view(-1, 1, 1, 1) + PLACE * step, LINF, 3, 2 / 255
    )


def no_opinion(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(images)), torch.ones(len(images))


def test_l2_changes_that_rounding_makes_too_long_are_shortened_and_no_others() -> None:
    x = torch.full((2, 3, 32, 32), 128 / 255)
    changed = x.clone()
    changed[0] += 0.6 / 255  # rounds to a whole level: 1/0.6 of its length
    changed[1, 0, 0, 0] += 20.4 / 255
    eps = 0.6 / 255 * math.sqrt(3072)
    out = rounded_within(x, changed - x, eps)
    assert float((to_float(out) - x).flatten(1).norm(dim=1).max()) <= L2_AIM * eps
    assert not (out[0] != 128).any()
    assert torch.equal(out[1], to_uint8(changed[1]))


def test_chunks_change_nothing_and_all_images_stay_in_place(small_chunks: None) -> None:
    data = random_set(40, 4)
    ctx = Context()
    expected = to_uint8(downhill(whole(data)))
    assert torch.equal(craft(data, ctx, LINF, downhill, no_opinion).x, expected)
    assert ctx.notes == {"crafting_loss": 0.0, "crafting_success": 1.0}


def test_notes_are_means_over_images_not_chunks(small_chunks: None) -> None:
    ctx = Context()
    craft(
        random_set(40, 4),
        ctx,
        LINF,
        downhill,
        lambda chunk, images: (chunk.y.float(), chunk.y == 3),
    )
    assert ctx.notes == {"crafting_loss": 1.5, "crafting_success": 0.25}


def test_what_is_judged_are_the_rounded_images() -> None:
    seen: list[Tensor] = []

    def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(images)
        return no_opinion(chunk, images)

    poisoned = craft(random_set(10, 2), Context(), LINF, downhill, judge)
    assert torch.equal(seen[0], to_float(poisoned.x))


@pytest.mark.parametrize("losses", [[3.0, 1.0, 2.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.5]])
def test_the_restart_of_the_whole_set_with_the_lowest_loss_is_kept(
    losses: list[float], small_chunks: None
) -> None:
    data, ctx = random_set(40, 4), Context()
    data = data.with_x(torch.full_like(data.x, 100))

    def number(chunk: Chunk) -> int:
        return int(chunk.name.split()[1])

    def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
        """The given losses as means over the set; the first chunk (7 of 40) says the opposite."""
        swing = losses[number(chunk)] * (-40 / 7 if chunk.name.endswith("chunk 0") else 80 / 33)
        return torch.full((len(images),), swing), torch.full((len(images),), float(number(chunk)))

    poisoned = craft(
        data, ctx, LINF, lambda chunk: chunk.x + (1 + number(chunk)) / 255, judge, restarts=3
    )
    best = losses.index(min(losses))
    assert (poisoned.x == 101 + best).all()
    assert ctx.notes["crafting_loss"] == pytest.approx(min(losses), abs=1e-5)
    assert ctx.notes["crafting_success"] == best


def test_a_killed_run_goes_on_with_the_chunk_it_was_at(tmp_path: Path, small_chunks: None) -> None:
    data = random_set(40, 4)

    def change(chunk: Chunk) -> Tensor:
        return descend(
            chunk,
            lambda x, step: PLACE - step,
            LINF,
            3,
            2 / 255,
            LINF.normal_start(chunk.x, 8 / 255, Context().generator(chunk.name)),
        )

    def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean((1, 2, 3)), chunk.y == 0

    undisturbed = Context()
    expected = craft(data, undisturbed, LINF, change, judge, restarts=2)
    crafted: list[str] = []

    def until(last: str) -> ImageSet:
        def watched(chunk: Chunk) -> Tensor:
            if chunk.name == last:
                raise KeyboardInterrupt
            crafted.append(chunk.name)
            return change(chunk)

        return craft(data, ctx, LINF, watched, judge, restarts=2)

    ctx = Context(scratch=tmp_path)
    for stop in ("restart 0 chunk 3", "restart 1 chunk 2"):
        with pytest.raises(KeyboardInterrupt):
            until(stop)
    assert until("").fingerprint == expected.fingerprint
    assert ctx.notes == undisturbed.notes
    assert crafted == [
        f"restart {restart} chunk {number}" for restart in range(2) for number in range(6)
    ]


def test_progress_rises_to_the_end(small_chunks: None) -> None:
    shares: list[float] = []
    ctx = Context(on_progress=lambda share, note: shares.append(share))
    craft(random_set(40, 4), ctx, LINF, downhill, no_opinion, restarts=2)
    assert shares == pytest.approx([(i + 1) / 36 for i in range(36)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_finite_is_refused(norm: str, value: float) -> None:
    ball = Ball(norm, 8 / 255)

    def change(chunk: Chunk) -> Tensor:
        return descend(
            chunk,
            lambda x, step: x if step else value * (chunk.y.view(-1, 1, 1, 1) == 1),
            ball,
            3,
            1 / 255,
        )

    with pytest.raises(
        FloatingPointError,
        match="restart 0 chunk 0: a changed image is not finite, since a gradient was not",
    ):
        craft(random_set(4, 2), Context(), ball, change, no_opinion)


@pytest.mark.parametrize(
    "attack",
    [TAP(steps=2, restarts=2), Hypo(ball="l2", eps=0.5, steps=2), SEP(variant="sep", steps=2)],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gray_images_that_are_not_square_of_many_classes(
    attack: Attack, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the hundred classes have no images, and the last chunk is smaller."""
    monkeypatch.setattr(_descent, "PIXELS", 7 * 63)
    monkeypatch.setattr(surrogate, "build_victim", build_counting_net)
    data = random_set(25, 100, channels=1, height=9, width=7)
    ctx = Context(
        precision=precision, surrogates=(build_counting_net("", data.info, 0).state_dict(),)
    )
    assert verify_poison(data, attack.poison(data, ctx), attack)["changed"] == 1.0


def test_a_chunk_holds_fewer_large_images() -> None:
    assert [
        part.stop - part.start
        for part in _descent.parts_of(random_set(600, 2, height=32, width=32))
    ] == [128] * 4 + [88]
    assert [
        part.stop - part.start
        for part in _descent.parts_of(random_set(5, 2, height=224, width=224))
    ] == [2, 2, 1]
    assert [
        part.stop - part.start
        for part in _descent.parts_of(random_set(2, 2, height=600, width=600))
    ] == [1, 1]


def test_an_images_gradient_is_that_of_its_own_loss() -> None:
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    gradient = gradient_of(lambda images: images.pow(3).sum((1, 2, 3)), x)
    assert torch.allclose(gradient, 3 * x**2)
    assert torch.allclose(
        gradient_of(lambda images: images.pow(3).sum((1, 2, 3)), x[1:2]), gradient[1:2]
    )
    assert not x.requires_grad


def test_a_sure_prediction_still_has_a_loss_and_a_gradient() -> None:
    """In float32 both are exactly 0 from a margin of some 17 on.

    An attack that descends the loss would stand still.
    """
    linear = nn.Linear(4, 2, bias=False)
    linear.weight.data = torch.tensor([[7.5] * 4, [0.0] * 4])
    model, x, y = nn.Sequential(nn.Flatten(), linear), torch.ones(1, 1, 2, 2), torch.tensor([0])
    in_float32 = gradient_of(lambda images: F.cross_entropy(model(images), y, reduction="none"), x)
    assert not in_float32.any()
    assert float(cross_entropy(model, x, y, Context()).detach()) == pytest.approx(
        math.exp(-30), rel=1e-2
    )
    assert (gradient_of(lambda images: cross_entropy(model, images, y, Context()), x) < 0).all()


def test_targets_lie_a_shift_away() -> None:
    assert targets(torch.tensor([0, 1, 2]), 1, 3).tolist() == [1, 2, 0]
    assert targets(torch.tensor([0, 1, 2]), -1, 3).tolist() == [2, 0, 1]
    assert targets(torch.tensor([0, 99]), 50, 100).tolist() == [50, 49]
    for shift in (0, 3, -6):
        with pytest.raises(
            ValueError, match=f"shift={shift} at 3 classes names each image's own class"
        ):
            check_shift(shift, 3)
