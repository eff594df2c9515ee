"""Targeted adversarial poisoning: adversarial examples that a clean network takes for another class.

Source: Fowl, Goldblum, Chiang, Geiping, Czaja, Goldstein, "Adversarial Examples Make Strong Poisons", NeurIPS 2021, arXiv:2106.10807.
Constants are those of the released CIFAR-10 code. The label stays; the image gets features of the class ``shift`` places on, which
victims learn as features of the label.

Departures:
- A chunk of images goes through all steps before the next one begins; the source goes through the whole set at every step. With a
  frozen network in eval mode the two are the same but for the draws.
- The random shift is bilinear sampling written as two matrix products an image. It is what the source's grid sampling computes, and
  has a deterministic gradient on every device.
- The restart that is kept is the one with the lowest loss on the finished images, rounded and without augmentation; in the source,
  the lowest loss that its last sweep saw.
- The random start is clipped to the image range, too.
- The surrogate follows a protocol of this benchmark for the published 40 epochs; the source's learning rate falls in three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from attacks._descent import Chunk, check_shift, drive
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.training.ball import Ball
from benchmark.training.surrogate import surrogates

SHIFT = 4.0  # pixels, the largest of the random shift


@attack(
    version=1,
    cite="arXiv:2106.10807",
    norm="linf",
    # 250 steps of a forward and two thirds of a backward pass
    effort={"restarts": 165.0},
    toy={
        "surrogate": "resnet8_w16_s2",
        "surrogate_protocol": "quick",
        "surrogate_epochs": 16,
        "steps": 2,
        "restarts": 2,
    },
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs"),
)
class TAP(Attack):
    """Noise that drives a trained network's prediction to another class, under random shifts and mirroring.

    Parameters:
        targeted: towards the target class; otherwise away from the true one, which the authors call brittle.
        shift: the target of class y is class y + shift, after the last class the first.
        eps: L-inf budget in [0, 1] units.
        steps: sign steps.
        step_share: length of one step as a share of eps.
        restarts: random starts of the whole set, of which the best is kept.
        surrogate: architecture of the surrogate, a victim's name.
        surrogate_protocol: protocol that trains it.
        surrogate_epochs: epochs of that training; 0 means the protocol's own.
    """

    targeted: bool = True
    shift: int = 1
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    steps: Annotated[int, Ge(1)] = 250
    step_share: Annotated[float, Interval(gt=0, le=1)] = 0.05
    restarts: Annotated[int, Ge(1)] = 8
    surrogate: str = "resnet18"
    surrogate_protocol: str = "std60"
    surrogate_epochs: Annotated[int, Ge(0)] = 40

    def check(self, info: DatasetInfo) -> None:
        if self.targeted:
            check_shift(self.shift, info.num_classes)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.check(data.info)
        (model,) = surrogates(self, data, ctx)
        shift = self.shift if self.targeted else None

        def view(chunk: Chunk, step: int) -> Callable[[Tensor], Tensor]:
            rows, columns = shifts(
                chunk.x, data.info.hflip, ctx.generator(f"shift {chunk.name} {step}")
            )
            return lambda x: rows @ x @ columns

        length = self.step_share * self.eps
        return drive(
            data,
            ctx,
            model,
            Ball("linf", self.eps),
            view,
            self.steps,
            length,
            shift,
            random_start=True,
            restarts=self.restarts,
        )


def shifts(x: Tensor, flip: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws for each image a shift of up to 4 pixels, and with ``flip`` whether it is mirrored.

    Args:
        x: (B, C, H, W), of which shape and device count.

    Returns:
        ``rows`` (B, 1, H, H) and ``columns`` (B, 1, W, W): ``rows @ x @ columns`` is x, sampled bilinearly, 0 beyond its border.
    """
    draws = torch.rand(3, len(x), generator=generator).to(x.device, non_blocking=True)
    down, along = SHIFT * (2 * draws[:2] - 1)
    rows, columns = _sampling(x.shape[2], down), _sampling(x.shape[3], along)
    if flip:
        columns = torch.where((draws[2] < 0.5)[:, None, None], columns.flip(1), columns)
    return rows[:, None], columns.transpose(1, 2)[:, None]


def _sampling(side: int, shift: Tensor) -> Tensor:
    """Matrices (B, side, side) whose row i weighs the pixels around position i + shift, shift (B,) in pixels."""
    place = torch.arange(side, device=shift.device)
    return (1 - (place[:, None] + shift[:, None, None] - place).abs()).clamp_min(0)
