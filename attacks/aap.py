"""Augmented adversarial poisoning: adversarial examples under contrastive augmentation.

Source: Wang, Zhu, Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning
Simultaneously", NeurIPS 2024, arXiv:2402.04010. Constants are those of the released CIFAR-10
script; for CIFAR-100 it has ``strength=0.8``. The label stays; the image gets features of the
class ``shift`` places on. The attack ``tap`` finds such features under shifts and mirroring.

Departures:
- The surrogate follows a protocol of this benchmark for the published 40 epochs, with random views
  beside the protocol's own crop and mirroring. The source has the views alone, a learning rate
  that rises to 0.5 in 10 epochs and falls along a cosine, and a weight decay of 1e-4.
- One strength holds for the surrogate's training and for the crafting. The source has two, and
  sets both to the same.
- Images are mirrored only where the data set allows it, as victims do.
- Boxes of the augmentation are not rounded to whole pixels, and an image stays whole if none of
  ten boxes fits into it. The order of the colour changes is drawn for a batch; the source's
  training draws it for an image.
- Boxes are resized with half-pixel centres; the source's crafting aligns the corner pixels
  (kornia's default).
- Images are rounded to nearest; the source cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from attacks._augment import augment
from attacks._descent import Chunk
from attacks._surrogate import OtherClassAttack
from benchmark import Context, ImageSet, attack


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
class AAP(OtherClassAttack):
    """Noise that makes a trained network predict another class under contrastive augmentation.

    Parameters:
        strength: of the augmentation in training the surrogate and in crafting, 0 (none) to 1
            (that of SimCLR).
    """

    strength: Annotated[float, Interval(ge=0, le=1)] = 0.4
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.01

    def augment_surrogate(self, x: Tensor, ctx: Context) -> Tensor:
        # the protocol does the mirroring
        return augment(x, self.strength, ctx.stream("surrogate views"), flip=False)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        def view(chunk: Chunk, step: int) -> Callable[[Tensor], Tensor]:
            generator = ctx.generator(f"views {chunk.name} {step}")
            return lambda x: augment(x, self.strength, generator, data.info.hflip)

        return self.drive(data, ctx, view)
