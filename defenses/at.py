"""Adversarial training: train on the PGD-perturbed form of each batch.

Source: Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018, arXiv:1706.06083.

L-inf has the constants that the evaluations of unlearnable examples share: 10 steps of 2/255 within
8/255, from a Gaussian start of one step's length, crafted in eval mode. L2 has the constants of
Tao, Feng, Yi, Huang, Chen, "Better Safe Than Sorry", NeurIPS 2021, arXiv:2102.04716: 7 steps of 0.1
within 0.5, from a random start inside the ball.

Departures:
- The Gaussian start is projected onto the ball and the image range before the first step; in the
  common recipe it may leave both until the first step's projection. This matters only with few
  steps.
- The L2 start is uniform in the ball. In 3,072 dimensions nearly all of a ball lies at its rim.
- The number of epochs and the schedule are the protocol's, so that every defense gets the same
  training.
- ISS (arXiv:2301.13838) trains with eps 0.031 and step 0.007, which are 7.9/255 and 1.8/255.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import Context, Defense, defense
from benchmark.training.ball import Ball
from benchmark.training.gradients import frozen, input_gradient


@defense(
    version=1,
    cite="arXiv:1706.06083",
    effort={"steps": 0.7},
    toy={"steps": 2, "step": 4 / 255},
    later=("start",),
    by_choice={"norm=l2": {"eps": 0.5, "step": 0.1, "steps": 7, "start": "uniform"}},
)
class AT(Defense):
    """PGD adversarial training, L-inf or L2.

    Parameters:
        norm: linf or l2.
        eps: radius in [0, 1] units of that norm; for l2 0.5 by default.
        step: length of one ascent step in the same units; for l2 0.1 by default.
        steps: ascent steps a batch; for l2 7 by default.
        start: normal (Gaussian noise, one step long in each pixel value) or uniform (anywhere in
            the ball); for l2 uniform by default.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[float, Gt(0)] = 8 / 255
    step: Annotated[float, Gt(0)] = 2 / 255
    steps: Annotated[int, Ge(1)] = 10
    start: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        if self.norm == "linf" and self.eps >= 1:
            raise ValueError(f"eps={self.eps} is in [0, 1] units; write 8/255, not 8")
        if self.steps * self.step < self.eps * (1 - 1e-9):  # 7 steps of eps/7 are enough
            raise ValueError(
                f"steps={self.steps} of step={self.step:.4g} go {self.steps * self.step:.4g} far "
                f"and cannot cross the radius eps={self.eps:.4g} of the {self.norm} ball; write "
                f"step={self.eps / self.steps:.4g} or more, or more steps"
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        with frozen(model):
            adversarial = self.craft(model, x, y, ctx)
        with ctx.autocast():
            logits = model(adversarial)
        return F.cross_entropy(logits.float(), y)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Return images within ``eps`` of ``x`` and in [0, 1] that raise the loss.

        Args:
            model: frozen and in eval mode.
            x: float (B, C, H, W) in [0, 1].
            y: int64 (B,) or float (B, K).
        """
        ball, generator = Ball(self.norm, self.eps), ctx.stream("at start")
        if self.start == "normal":
            current = ball.normal_start(x, self.step, generator)
        else:
            current = ball.random_start(x, generator)
        for _ in range(self.steps):
            gradient, _ = input_gradient(model, current, y, ctx)
            current = ball.project(current + self.step * ball.direction(gradient), x)
        return current.detach()
