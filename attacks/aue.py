"""Augmented unlearnable examples: error-minimising noise under contrastive augmentation.

Source: Wang, Zhu, Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning
Simultaneously", NeurIPS 2024, arXiv:2402.04010. Constants are those of the released CIFAR-10
script; for CIFAR-100 it has ``strength=1.0``.

Departures:
- Images are mirrored only where the data set allows it, as victims do.
- The surrogate sees images clipped to [0, 1], also with class-wise noise; the gradient is that at
  the clipped image. The source clips sample-wise noise, which is the same, and leaves class-wise
  noise as it is.
- Sample-wise, the noise's turn goes through the images in their order: in eval mode they do not
  depend on each other.
- The learning rate's cosine ends at 0, the source's at 1e-6. A batch of one image is left out.
- Boxes of the augmentation are not rounded to whole pixels, and an image stays whole if none of
  ten boxes fits into it.
- Boxes are resized with half-pixel centres; the source aligns the corner pixels (kornia's
  default).
- Noise is kept in half precision, which errs by less than 0.01 levels, to halve its size.
- Images are rounded to nearest; the source cuts.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from attacks._augment import augment
from attacks._min_min import MinMin, batches
from benchmark import Attack, Context, ImageSet, attack
from benchmark.training.gradients import input_gradient
from benchmark.training.schedule import cosine


@attack(
    version=1,
    cite="arXiv:2402.04010",
    norm="linf",
    # a training pass, 5 noise steps of two thirds of one, an evaluation
    effort={"epochs": 5.0},
    toy={"surrogate": "resnet8_w16_s2", "epochs": 5, "noise_steps": 2, "batch_size": 32},
)
class AUE(Attack):
    """Error-minimising noise under contrastive augmentation.

    It is meant against supervised and contrastive learning.

    Parameters:
        granularity: sample or class.
        strength: of the augmentation, 0 (none) to 1 (that of SimCLR).
        eps: L-inf budget in [0, 1] units.
        step_share: length of one sign step as a share of eps.
        noise_steps: sign steps a batch and epoch; 0 means 5 sample-wise and 1 class-wise.
        epochs: rounds of one pass of the surrogate and one of the noise over the set.
        surrogate: architecture of the surrogate, a victim's name.
        batch_size: of both passes.
        lr: of the surrogate's SGD at its start; falls along a cosine.
    """

    granularity: Literal["sample", "class"] = "sample"
    strength: Annotated[float, Interval(ge=0, le=1)] = 0.6
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.1
    noise_steps: Annotated[int, Ge(0)] = 0
    epochs: Annotated[int, Ge(1)] = 60
    surrogate: str = "resnet18"
    batch_size: Annotated[int, Ge(2)] = 128
    lr: Annotated[float, Gt(0)] = 0.1

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        by_class = self.granularity == "class"
        view = View(self.strength, data.info.hflip)
        game = MinMin(
            data,
            ctx,
            surrogate=self.surrogate,
            by_class=by_class,
            eps=self.eps,
            lr=self.lr,
            weight_decay=1e-4,
            chunk=self.batch_size,
            view=view,
        )

        def shuffled(purpose: str) -> list[Tensor]:
            order = torch.randperm(len(data), generator=ctx.generator(purpose))
            return batches(order, self.batch_size)

        def model_turn(number: int) -> None:
            view.generator = ctx.generator(f"model views {number}")
            for group in game.optimizer.param_groups:
                group["lr"] = cosine(self.lr, number - 1, self.epochs)
            for batch in shuffled(f"model order {number}"):
                game.model_step(batch, clipped=True)

        def noise_turn(number: int) -> None:
            view.generator = ctx.generator(f"noise views {number}")
            if not by_class:
                game.sample_turn(self.noise_steps or 5, self.step_share * self.eps)
                return
            for batch in shuffled(f"noise order {number}"):
                self._class_steps(game, batch)

        return game.play(model_turn, noise_turn, self.epochs, expected=self.epochs)

    def _class_steps(self, game: MinMin, batch: Tensor) -> None:
        """Move the noise of each class in the batch down the summed gradient of its images."""
        x, y = game.images(batch)
        length = self.step_share * self.eps
        for _ in range(self.noise_steps or 1):
            poisoned = (x + game.class_noise[y]).clamp_(0, 1)
            gradient, _ = input_gradient(game.seen, poisoned, y, game.ctx)
            downhill = game.ball.direction(game.class_sums(gradient, y))
            game.class_noise.copy_(game.ball.within(game.class_noise - length * downhill))


class View(nn.Module):
    """What the surrogate sees: a fresh view of each image.

    ``generator`` draws the views; each turn sets its own.
    """

    generator: torch.Generator

    def __init__(self, strength: float, flip: bool) -> None:
        super().__init__()
        self.strength, self.flip = strength, flip

    def forward(self, x: Tensor) -> Tensor:
        return augment(x, self.strength, self.generator, self.flip)
