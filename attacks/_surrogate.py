"""Base classes of attacks that look through a network trained on the clean images.

``aap``, ``tap``, ``hypo`` and ``sep`` share the parameters of that network, their surrogate.
``aap`` and ``tap`` also share their aim: the surrogate takes an image for another class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional as F

from attacks._descent import (
    Chunk,
    check_shift,
    craft,
    cross_entropy,
    descend,
    gradient_of,
    logits_of,
    targets,
)
from benchmark import Attack, Context, DatasetInfo, ImageSet
from benchmark.training.ball import Ball
from benchmark.training.surrogate import surrogates

# chunk and number of the step -> a differentiable change of its images
View = Callable[[Chunk, int], Callable[[Tensor], Tensor]]


@dataclass(frozen=True, kw_only=True)
class SurrogateAttack(Attack):
    """An attack on a surrogate that a stage of its own trains.

    Parameters:
        surrogate: architecture of the surrogate, a victim's name.
        surrogate_protocol: protocol that trains it.
        surrogate_epochs: epochs of that training; 0 means the protocol's own.
    """

    surrogate: str = "resnet18"
    surrogate_protocol: str = "std60"
    surrogate_epochs: Annotated[int, Ge(0)] = 40


@dataclass(frozen=True, kw_only=True)
class OtherClassAttack(SurrogateAttack):
    """Sign steps until the surrogate takes an image for another class.

    Parameters:
        targeted: towards the target class; otherwise away from the true one.
        shift: the target of class y is class y + shift, after the last class the first.
        eps: L-inf budget in [0, 1] units.
        steps: sign steps.
        step_share: length of one step as a share of eps.
    """

    targeted: bool = True
    shift: int = 1
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    steps: Annotated[int, Ge(1)] = 250
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.05

    def check(self, info: DatasetInfo) -> None:
        if self.targeted:
            check_shift(self.shift, info.num_classes)

    def drive(
        self,
        data: ImageSet,
        ctx: Context,
        view: View,
        random_start: bool = False,
        restarts: int = 1,
    ) -> ImageSet:
        """Craft images that the surrogate takes for another class.

        The surrogate sees the images through a new ``view`` at each step. Success is counted on
        the finished images, without a view.

        Args:
            random_start: whether images begin with ``Ball.normal_start``.
            restarts: random starts of the whole set.
        """
        self.check(data.info)
        (model,) = surrogates(self, data, ctx)
        ball = Ball("linf", self.eps)
        sign = 1 if self.targeted else -1

        def label(chunk: Chunk) -> Tensor:
            """The class that images go to, or the one that they leave."""
            if self.targeted:
                return targets(chunk.y, self.shift, data.info.num_classes)
            return chunk.y

        def change(chunk: Chunk) -> Tensor:
            def gradient(images: Tensor, step: int) -> Tensor:
                look = view(chunk, step)
                return gradient_of(
                    lambda x: sign * cross_entropy(model, look(x), label(chunk), ctx), images
                )

            start = None
            if random_start:
                start = ball.normal_start(chunk.x, ball.eps, ctx.generator(f"start {chunk.name}"))
            length = self.step_share * self.eps
            return descend(chunk, gradient, ball, self.steps, length, start)

        def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, images, ctx)
            loss = sign * F.cross_entropy(logits, label(chunk), reduction="none")
            hit = logits.argmax(1) == label(chunk)
            return loss, hit if self.targeted else ~hit

        return craft(data, ctx, ball, change, judge, restarts)
