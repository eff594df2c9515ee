"""Augmented adversarial poisoning: adversarial examples that fool a clean network through the augmentation of contrastive learning.

Source: Wang, Zhu, Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously", NeurIPS 2024,
arXiv:2402.04010. Constants are those of the released CIFAR-10 script; for CIFAR-100 it has ``strength=0.8``. The label stays; the image
gets features of the class ``shift`` places on, as in the attack ``tap``, which finds them under shifts and mirroring.

Departures:
- The surrogate follows a protocol of this benchmark for the published 40 epochs, with random views beside the protocol's own crop and
  mirroring. The source has the views alone, a learning rate that rises to 0.5 in 10 epochs and falls along a cosine, and a weight decay of
  1e-4.
- One strength for the surrogate's training and for the crafting. The source has two, and sets both to the same.
- Images are mirrored only where the data set allows it, as victims do.
- Boxes of the augmentation are not rounded to whole pixels, and an image that none of ten boxes fits stays whole. The order of
  the colour changes is drawn for a batch; in the source's training, for an image.
- Boxes are resized with half-pixel centres; the source's crafting aligns the corner pixels
  (kornia's default).
- Images are rounded to nearest; the source cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor

from attacks._augment import augment
from attacks._descent import Chunk, check_shift, drive
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.training.ball import Ball
from benchmark.training.surrogate import surrogates


@attack(
    version=1,
    cite="arXiv:2402.04010",
    norm="linf",
    # a forward and two thirds of a backward pass, and the views
    effort={"steps": 0.7},
    toy={
        "surrogate": "resnet8_w16_s2",
        "surrogate_protocol": "quick",
        "surrogate_epochs": 20,
        "steps": 3,
        "step_share": 0.3,
    },
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs", "strength"),
)
class AAP(Attack):
    """Noise that drives a trained network's prediction to another class under contrastive-strength augmentation.

    Parameters:
        targeted: towards the target class; otherwise away from the true one.
        shift: the target of class y is class y + shift, after the last class the first.
        strength: of the augmentation in training the surrogate and in crafting, 0 (none) to 1 (that of SimCLR).
        eps: L-inf budget in [0, 1] units.
        steps: sign steps.
        step_share: length of one step as a share of eps.
        surrogate: architecture of the surrogate, a victim's name.
        surrogate_protocol: protocol that trains it.
        surrogate_epochs: epochs of that training; 0 means the protocol's own.
    """

    targeted: bool = True
    shift: int = 1
    strength: Annotated[float, Interval(ge=0, le=1)] = 0.4
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    steps: Annotated[int, Ge(1)] = 250
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.01
    surrogate: str = "resnet18"
    surrogate_protocol: str = "std60"
    surrogate_epochs: Annotated[int, Ge(0)] = 40

    def augment_surrogate(self, x: Tensor, ctx: Context) -> Tensor:
        return augment(
            x, self.strength, ctx.stream("surrogate views"), flip=False
        )  # mirroring is the protocol's

    def check(self, info: DatasetInfo) -> None:
        if self.targeted:
            check_shift(self.shift, info.num_classes)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.check(data.info)
        (model,) = surrogates(self, data, ctx)
        shift = self.shift if self.targeted else None

        def view(chunk: Chunk, step: int) -> Callable[[Tensor], Tensor]:
            generator = ctx.generator(f"views {chunk.name} {step}")
            return lambda x: augment(x, self.strength, generator, data.info.hflip)

        return drive(
            data,
            ctx,
            model,
            Ball("linf", self.eps),
            view,
            self.steps,
            self.step_share * self.eps,
            shift,
        )
