"""Adversarial training: what PGD crafts, and that it leaves the model as it was."""

from __future__ import annotations

import math

import pytest
import torch

from benchmark import Context, DatasetInfo
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Value, parse_spec
from benchmark.training.ball import Ball
from benchmark.training.gradients import frozen
from benchmark.training.train import build_victim
from defenses.at import AT

ONE_STEP = AT(steps=1, step=8 / 255)
INFO = DatasetInfo("toy", 10, tuple("abcdefghij"), 3, 32, 32, True)


@pytest.fixture
def model() -> torch.nn.Module:
    return build_victim("resnet10_w16", INFO, 0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8)


@pytest.mark.parametrize(("norm", "eps", "step"), [("linf", 8 / 255, 2 / 255), ("l2", 0.5, 0.2)])
def test_stays_in_the_ball_and_raises_the_loss(
    model: torch.nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor],
    norm: str,
    eps: float,
    step: float,
) -> None:
    x, y = batch
    with frozen(model):
        adversarial = AT(norm=norm, eps=eps, step=step, steps=4).craft(model, x, y, Context())
        change = (adversarial - x).flatten(1)
        size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert size.max() <= eps + 1e-6
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        before, after = (
            torch.nn.functional.cross_entropy(model(images), y) for images in (x, adversarial)
        )
    assert after > before


def test_crafting_moves_no_buffer_and_restores_flags(
    model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model.train()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_buffers()}
    with frozen(model):
        AT(steps=2, step=4 / 255).craft(model, *batch, Context())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.training
    assert not first.requires_grad
    assert all(weight.requires_grad for weight in list(model.parameters())[1:])


def test_three_steps_by_hand() -> None:
    """A linear model of one pixel has a known direction; the ball and the image range bind."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(
            torch.tensor([[1.0], [-1.0]])
        )  # label 0 gains with brightness, so ascent darkens
    x = torch.tensor([0.5, 0.01]).reshape(2, 1, 1, 1)
    adversarial = AT(eps=0.1, step=0.09, steps=3).craft(model, x, torch.tensor([0, 0]), Context())
    assert adversarial.flatten().tolist() == pytest.approx([0.4, 0.0])


def test_every_batch_starts_elsewhere(
    model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ctx = Context()
    with frozen(model):
        one, two = (ONE_STEP.craft(model, *batch, ctx) for _ in range(2))
    assert not torch.equal(one, two)


def test_loss_reaches_the_weights_in_train_mode(
    model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model.train()
    ONE_STEP.loss(model, *batch, Context()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def resolved(text: str, suite: dict[str, Value] | None = None) -> dict[str, Value]:
    return dict(Registry().resolve("defense", parse_spec(text), suite).params)


def test_each_norm_has_its_own_defaults() -> None:
    linf = {"norm": "linf", "eps": 8 / 255, "step": 2 / 255, "steps": 10}
    l2 = {"norm": "l2", "eps": 0.5, "step": 0.1, "steps": 7, "start": "uniform"}
    assert resolved("at") == resolved("at[norm=linf]") == linf
    assert resolved("at[norm=l2]") == l2
    assert resolved("at[norm=l2,eps=0.25]") == {**l2, "eps": 0.25}
    assert AT() == AT(**linf)  # type: ignore[arg-type]
    assert AT(norm="l2") == AT(**l2)  # type: ignore[arg-type]
    assert AT(norm="l2", steps=9) == AT(**{**l2, "steps": 9})  # type: ignore[arg-type]


def test_a_suites_values_hold_for_the_norm_that_they_were_meant_for() -> None:
    suite: dict[str, Value] = {"eps": 4 / 255, "step": 5 / 255, "steps": 1}
    assert resolved("at", suite) == {"norm": "linf", **suite}
    assert resolved("at[norm=l2]", suite) == resolved("at[norm=l2]")
    of_l2: dict[str, Value] = {"norm": "l2", "eps": 1.0, "step": 0.2}
    assert resolved("at", of_l2) == {**resolved("at[norm=l2]"), **of_l2}
    assert resolved("at[norm=linf]", of_l2) == resolved("at")


def test_steps_may_just_reach_the_radius() -> None:
    assert AT(norm="l2", eps=0.7, step=0.1, steps=7).eps == 0.7
    assert AT(eps=0.3, step=0.1, steps=3).eps == 0.3  # 3 * 0.1 > 0.3 in binary, 0.3 / 3 * 3 not


def margin_model(weight: torch.Tensor) -> torch.nn.Module:
    """Two classes with logits 0 and ``weight * x``: for label 0 the loss rises with the second."""
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(weight.numel(), 2, bias=False)
    ).requires_grad_(False)
    model[1].weight.copy_(torch.stack([torch.zeros(weight.numel()), weight.flatten()]))
    return model


def at_start(at: AT, x: torch.Tensor) -> torch.Tensor:
    """What ``craft`` adds to images before its first step, if it starts uniformly."""
    return Ball(at.norm, at.eps).random_change(x, Context().stream("at start"))


def middle_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images so far from black and white that the image range never binds, and a gradient."""
    generator = torch.Generator().manual_seed(3)
    x = 0.4 + 0.2 * torch.rand(5, 3, 16, 16, generator=generator)
    return x, 0.1 * torch.randn(3, 16, 16, generator=generator)


def test_on_a_linear_model_the_margin_rises_by_eps_times_the_gradients_length() -> None:
    x, weight = middle_images()
    at = AT(norm="l2", steps=100)
    found = at.craft(margin_model(weight), x, torch.zeros(5, dtype=torch.long), Context())
    rise = ((found - x) * weight).flatten(1).sum(1)
    assert rise.tolist() == pytest.approx([0.5 * weight.norm().item()] * 5, rel=1e-5)
    assert torch.allclose(found - x, (0.5 / weight.norm() * weight).expand_as(x), atol=1e-6)


def test_seven_steps_by_hand_in_the_plane_of_start_and_gradient() -> None:
    """Only two lengths matter: along the gradient and across it. Projection shrinks both."""
    x, weight = middle_images()
    at = AT(norm="l2")
    found = at.craft(margin_model(weight), x, torch.zeros(5, dtype=torch.long), Context())
    start = at_start(at, x)
    toward = weight / weight.norm()
    along = (start * toward).flatten(1).sum(1)
    across = (start - along[:, None, None, None] * toward).flatten(1).norm(dim=1)
    for _ in range(7):
        along = along + 0.1
        shrink = (0.5 / torch.hypot(along, across)).clamp(max=1)
        along, across = along * shrink, across * shrink
    rise = ((found - x) * toward).flatten(1).sum(1)
    assert torch.allclose(rise, along, atol=1e-5)
    assert (rise > 0.85 * 0.5).all()  # what the defaults reach of the largest rise


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 2, 2)])
def test_the_l2_start_is_uniform_in_the_ball(shape: tuple[int, int, int]) -> None:
    """The share of the ball's volume within a start's radius is uniform, in all directions."""
    count, dims = 20_000, math.prod(shape)
    starts = at_start(AT(norm="l2"), torch.zeros(count, *shape)).flatten(1)
    lengths = starts.norm(dim=1)
    assert lengths.max() <= 0.5 * (1 + 1e-6)
    share = ((lengths / 0.5) ** dims).sort().values
    steps = torch.arange(1, count + 1) / count
    assert (share - steps).abs().max() < 1.95 / count**0.5  # Kolmogorov-Smirnov, 0.1 %
    assert (starts.mean(0).abs() < 4 * 0.5 / count**0.5).all()
    squares = starts.square().mean(0) * (dims + 2) / 0.5**2  # 1 in a uniform ball
    assert torch.allclose(squares, torch.ones(dims), atol=0.05)


def test_the_linf_start_is_uniform_in_the_box_if_asked_for() -> None:
    change = at_start(AT(start="uniform", eps=0.1, step=0.1), torch.zeros(200, 3, 8, 8))
    assert change.abs().max() <= 0.1
    assert change.mean().item() == pytest.approx(0, abs=1e-3)
    assert change.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.01)


def test_the_l2_projection_is_the_nearest_point_of_the_ball() -> None:
    x = torch.full((2, 1, 1, 2), 0.5)
    moved = x + torch.tensor([[0.3, 0.4], [0.06, 0.08]]).reshape(2, 1, 1, 2)
    found = Ball("l2", 0.25).project(moved, x)
    wanted = x + torch.tensor([[0.15, 0.2], [0.06, 0.08]]).reshape(2, 1, 1, 2)
    assert torch.allclose(found, wanted, atol=1e-7)


def test_tiny_gradients_keep_their_direction_and_none_has_none() -> None:
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    found = Ball("l2", 0.5).direction(gradient).flatten(1)
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 8.0}, "write 8/255"),
        ({"norm": "l1"}, "expected linf or l2"),
        ({"steps": 0}, "at least 1"),
        ({"start": "zero"}, "expected normal or uniform"),
        ({"steps": 3}, r"steps=3 of step=0\.007843 go 0\.02353 far .* write step=0\.01046 or more"),
        ({"norm": "l2", "eps": 0.75}, r"cannot cross the radius eps=0\.75 of the l2 ball"),
    ],
)
def test_bad_parameters(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AT(**values)  # type: ignore[arg-type]
