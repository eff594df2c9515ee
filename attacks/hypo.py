"""Hypocritical perturbations: images that a clean network finds easier than they are.

Source: Tao, Feng, Yi, Huang, Chen, "Better Safe Than Sorry: Preventing Delusive Adversaries with
Adversarial Training", NeurIPS 2021, arXiv:2102.04716; their P2. The noise descends the loss of the
true label, so that a victim finds features that help on these images and fail on others. It is
weak by design, and serves as a weak attack to compare with.

Departures:
- The default is the form that benchmarks use, L-inf 8/255 with a ResNet-18. The authors' is L2 0.5
  with a VGG16, trained for 150 epochs with two steps of the learning rate:
  ``hypo[ball=l2,eps=0.5]`` has their budget. The surrogate follows a protocol of this benchmark.
- The L2 budget is for 3x32x32 and grows with the square root of the image's size, as for the
  attack ``ar``: at 224 pixels an unscaled 0.5 is a third of a level a pixel, which rounding would
  swallow.
- Images are rounded to nearest; L2 changes that rounding makes more than 0.9 % longer than the
  budget are shortened by 1 % at a time.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Interval
from torch import Tensor

from attacks._descent import Chunk, craft, cross_entropy, descend, gradient_of
from attacks._lengths import check_lengths
from attacks._surrogate import SurrogateAttack
from benchmark import Context, DatasetInfo, ImageSet, attack
from benchmark.api import Norm
from benchmark.training.ball import Ball
from benchmark.training.surrogate import surrogates


@attack(
    version=1,
    cite="arXiv:2102.04716",
    norm="linf",
    effort={"steps": 0.65},
    toy={
        "surrogate": "resnet8_w16_s2",
        "surrogate_protocol": "quick",
        "surrogate_epochs": 16,
        "steps": 3,
    },
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs"),
)
class Hypo(SurrogateAttack):
    """Noise that makes the loss of the true label small on a trained network.

    Parameters:
        ball: linf or l2, the norm of the budget.
        eps: budget in [0, 1] units; for l2 that of an image of 3x32x32, other sizes in proportion
            to the root of their size.
        steps: steps down the loss.
        step_share: length of one step as a share of the budget.
    """

    ball: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    steps: Annotated[int, Ge(1)] = 100
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.2
    surrogate_epochs: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.ball == "linf":
            check_lengths(eps=self.eps)
        elif not 0.25 <= self.eps <= 4:
            raise ValueError(
                f"eps={self.eps:g} is an L2 length at 3x32x32, not in levels, published 0.5; "
                "expected 0.25 (one level a pixel) to 4"
            )

    @property
    def norm(self) -> Norm:
        return self.ball

    def budget(self, info: DatasetInfo) -> float:
        return self.eps * math.sqrt(info.size / 3072) if self.ball == "l2" else self.eps

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        (model,) = surrogates(self, data, ctx)
        ball = Ball(self.ball, self.budget(data.info))

        def change(chunk: Chunk) -> Tensor:
            def gradient(images: Tensor, step: int) -> Tensor:
                return gradient_of(lambda x: cross_entropy(model, x, chunk.y, ctx), images)

            return descend(chunk, gradient, ball, self.steps, self.step_share * ball.eps)

        def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
            loss = cross_entropy(model, images, chunk.y, ctx)
            return loss, loss < cross_entropy(model, chunk.x, chunk.y, ctx)

        return craft(data, ctx, ball, change, judge)
