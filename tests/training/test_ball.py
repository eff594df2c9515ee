"""Projected gradient steps, against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.training.ball import Ball, lengths


def row(*values: float) -> Tensor:
    """One image of one channel and one row of pixels."""
    return torch.tensor(values).view(1, 1, 1, -1)


def down(ball: Ball, current: Tensor, gradient: Tensor, length: float, x: Tensor) -> Tensor:
    return ball.project(current - length * ball.direction(gradient), x)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_sign_step_has_its_length_and_stays_in_ball_and_range() -> None:
    x = row(0.5, 0.5, 0.5, 0.01, 0.99)
    gradient = row(3.0, -1e-30, 0.0, 1.0, -1.0)
    ball = Ball("linf", 0.1)
    once = down(ball, x, gradient, 0.06, x)
    assert once.flatten().tolist() == pytest.approx([0.44, 0.56, 0.5, 0.0, 1.0], abs=1e-7)
    twice = down(ball, once, gradient, 0.06, x)
    assert twice.flatten().tolist() == pytest.approx([0.4, 0.6, 0.5, 0.0, 1.0], abs=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_an_l2_step_goes_along_the_gradient_of_each_image(scale: float) -> None:
    x = torch.full((2, 1, 1, 2), 0.5)
    gradient = scale * torch.tensor([[3.0, -4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    once = down(Ball("l2", 0.2), x, gradient, 0.05, x)
    assert once.flatten().tolist() == pytest.approx([0.47, 0.54, 0.5, 0.5], abs=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nan_is_not_hidden(norm: str) -> None:
    direction = Ball(norm, 0.1).direction(row(math.nan, 1.0))
    assert bool(direction.isnan().any())


def test_within_clamps_each_value_or_shortens_each_image() -> None:
    delta = torch.tensor([[0.3, -0.4], [0.03, 0.04]]).view(2, 1, 1, 2)
    linf = Ball("linf", 0.1).within(delta).flatten().tolist()
    assert linf == pytest.approx([0.1, -0.1, 0.03, 0.04], abs=1e-7)
    l2 = Ball("l2", 0.1).within(delta).flatten().tolist()
    assert l2 == pytest.approx([0.06, -0.08, 0.03, 0.04], abs=1e-7)


def test_no_change_stays_no_change() -> None:
    nothing = torch.zeros(2, 3, 4, 4)
    for norm in ("linf", "l2"):
        assert torch.equal(Ball(norm, 0.1).within(nothing), nothing)


def test_an_l2_ball_has_its_radius() -> None:
    x = torch.full((4, 3, 8, 8), 0.5)
    moved = x + 0.2 * torch.randn(x.shape, generator=generator())
    moved[3] = x[3] + 0.001
    change = Ball("l2", 0.3).project(moved, x) - x
    assert lengths(change[:3]).flatten().tolist() == pytest.approx([0.3] * 3, rel=1e-5)
    likeness = F.cosine_similarity(change.flatten(1), (moved - x).flatten(1))
    assert torch.allclose(likeness, torch.ones(4))
    assert torch.allclose(change[3], moved[3] - x[3], atol=1e-7)


def test_a_linear_loss_rises_by_eps_times_the_gradient_in_the_dual_norm() -> None:
    """The largest rise of <g, delta> is eps * |g|_1 in L-inf and eps * |g|_2 in L2."""
    gradient = torch.randn(3, 1, 4, 4, generator=generator())
    x = torch.full((3, 1, 4, 4), 0.5)
    for norm, dual in (("linf", 1), ("l2", 2)):
        ball, current = Ball(norm, 0.1), x
        for _ in range(5):
            current = ball.project(current + 0.03 * ball.direction(gradient), x)
        rise = ((current - x) * gradient).flatten(1).sum(1)
        expected = 0.1 * torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1)
        assert torch.allclose(rise, expected, rtol=1e-4)


def test_a_random_change_is_uniform_in_the_ball() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    flat = Ball("linf", 0.1).random_change(x, generator())
    assert 0.0999 < float(flat.abs().max()) <= 0.1
    assert float(flat.square().mean()) == pytest.approx(0.1**2 / 3, rel=0.03)  # of a uniform draw
    long = lengths(Ball("l2", 0.1).random_change(x, generator())).flatten()
    assert 0.0999 < float(long.max()) <= 0.1 * (1 + 1e-6)
    assert float(long.mean()) == pytest.approx(0.1 * 4 / 5, rel=0.01)  # four dimensions
    assert float(long.square().mean()) == pytest.approx(0.1**2 * 4 / 6, rel=0.01)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_stay_in_ball_and_range_and_depend_on_the_seed(norm: str) -> None:
    x = torch.rand(8, 3, 4, 4, generator=generator(1))
    ball = Ball(norm, 0.3)
    for start in (ball.random_start, lambda x, drawn: ball.normal_start(x, 0.1, drawn)):
        found = start(x, generator())
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert torch.allclose(ball.project(found, x), found, atol=1e-6)
        assert torch.equal(start(x, generator()), found)
        assert not torch.equal(start(x, generator(2)), found)


def test_a_normal_start_is_standard_normal_noise_within_the_ball() -> None:
    x = torch.full((20, 3, 8, 8), 0.5)
    change = Ball("linf", 0.1).normal_start(x, 0.1, generator()) - x
    assert float(change.abs().max()) == pytest.approx(0.1, abs=1e-6)
    beyond = float((change.abs() > 0.0999).float().mean())
    assert 0.29 < beyond < 0.34  # beyond one standard deviation: 0.317


def test_a_radius_of_zero_is_the_image_itself() -> None:
    x = torch.rand(2, 3, 4, 4, generator=generator())
    assert torch.equal(Ball("linf", 0.0).random_start(x, generator()), x)
