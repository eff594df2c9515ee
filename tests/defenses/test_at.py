"""Adversarial training: what PGD crafts, and that it leaves the model as it was."""

from __future__ import annotations

import pytest
import torch

from benchmark import Context, DatasetInfo
from benchmark.training.gradients import frozen
from benchmark.training.train import build_victim
from defenses.at import AT

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
        AT(steps=2).craft(model, *batch, Context())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.training
    assert not first.requires_grad
    assert all(weight.requires_grad for weight in list(model.parameters())[1:])


def test_three_steps_by_hand() -> None:
    """A linear model on one pixel: the ascent direction is known, the ball and the image range bind."""
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
        one, two = (AT(steps=1).craft(model, *batch, ctx) for _ in range(2))
    assert not torch.equal(one, two)


def test_loss_reaches_the_weights_in_train_mode(
    model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model.train()
    AT(steps=1).loss(model, *batch, Context()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 8.0}, "write 8/255"),
        ({"norm": "l1"}, "expected linf or l2"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_bad_parameters(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AT(**values)  # type: ignore[arg-type]
