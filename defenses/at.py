"""Adversarial training: every batch is replaced by its PGD-perturbed form before the update.

Source: Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
arXiv:1706.06083, with the constants that the evaluations of unlearnable examples share: 10 steps of 2/255 within 8/255, from
a Gaussian start of one step's length, crafted in eval mode.

Departures:
- The Gaussian start is projected at once, onto the ball and the image range; in the common recipe it may leave both until the first
  step's projection. It matters only where steps are few.
- The number of epochs and the schedule are the protocol's, so that every defense gets the same training.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import Context, Defense, defense
from benchmark.training.gradients import frozen, input_gradient


@defense(
    version=1,
    cite="arXiv:1706.06083",
    effort={"steps": 0.7},
    toy={"steps": 2},
)
class AT(Defense):
    """PGD adversarial training, L-inf or L2.

    Parameters:
        norm: linf or l2.
        eps: radius in [0, 1] units of that norm.
        step: length of one ascent step in the same units.
        steps: ascent steps a batch.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[float, Gt(0)] = 8 / 255
    step: Annotated[float, Gt(0)] = 2 / 255
    steps: Annotated[int, Ge(1)] = 10

    def __post_init__(self) -> None:
        if self.norm == "linf" and self.eps >= 1:
            raise ValueError(f"eps={self.eps} is in [0, 1] units; write 8/255, not 8")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        with frozen(model):
            adversarial = self.craft(model, x, y, ctx)
        with ctx.autocast():
            logits = model(adversarial)
        return F.cross_entropy(logits.float(), y)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Images within ``eps`` of ``x`` and in [0, 1] that raise the loss; the model is expected frozen, in eval mode."""
        noise = torch.randn(x.shape, generator=ctx.stream("at start")).to(
            x.device, non_blocking=True
        )
        current = self._project(x + self.step * noise, x)
        for _ in range(self.steps):
            gradient, _ = input_gradient(model, current, y, ctx)
            if self.norm == "linf":
                ascent = gradient.sign()
            else:
                ascent = (
                    gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
                )
            current = self._project(current + self.step * ascent, x)
        return current.detach()

    def _project(self, moved: Tensor, x: Tensor) -> Tensor:
        change = moved - x
        if self.norm == "linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            length = change.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
            change = change * (self.eps / length).clamp(max=1)
        return (x + change).clamp(0, 1)
