"""Targeted adversarial poisoning: adversarial examples that fool a network trained on clean data.

Source: Fowl, Goldblum, Chiang, Geiping, Czaja, Goldstein, "Adversarial Examples Make Strong
Poisons", NeurIPS 2021, arXiv:2106.10807. Constants are those of the released CIFAR-10 code. The
label stays; the image gets features of the class ``shift`` places on, which victims learn as
features of the label.

Departures:
- A chunk of images goes through all steps before the next one begins; the source goes through the
  whole set at every step. With a frozen network in eval mode the two differ in their draws alone.
- The random shift is bilinear sampling written as two matrix products an image. It computes what
  the source's grid sampling computes, and has a deterministic gradient on every device.
- The attack keeps the restart with the lowest loss on the finished images, rounded and without
  augmentation. The source keeps the one with the lowest loss in its last sweep.
- The random start, too, is clipped to the image range.
- The surrogate follows a protocol of this benchmark for the published 40 epochs; the source's
  learning rate falls in three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from attacks._descent import Chunk
from attacks._surrogate import OtherClassAttack
from benchmark import Context, ImageSet, attack

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
class TAP(OtherClassAttack):
    """Noise that makes a trained network predict another class under random shifts and mirroring.

    Parameters:
        targeted: towards the target class; otherwise away from the true one, which the authors
            call brittle.
        restarts: random starts of the whole set; the best one is kept.
    """

    restarts: Annotated[int, Ge(1)] = 8

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        def view(chunk: Chunk, step: int) -> Callable[[Tensor], Tensor]:
            generator = ctx.generator(f"shift {chunk.name} {step}")
            rows, columns = shifts(chunk.x, data.info.hflip, generator)
            return lambda x: rows @ x @ columns

        return self.drive(data, ctx, view, random_start=True, restarts=self.restarts)


def shifts(x: Tensor, flip: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a shift of up to 4 pixels for each image, and with ``flip`` whether to mirror it.

    Args:
        x: (B, C, H, W); only its shape and device count.

    Returns:
        ``rows`` (B, 1, H, H) and ``columns`` (B, 1, W, W). ``rows @ x @ columns`` samples x
        bilinearly, with 0 beyond its border.
    """
    draws = torch.rand(3, len(x), generator=generator).to(x.device, non_blocking=True)
    down, along = SHIFT * (2 * draws[:2] - 1)
    rows, columns = _sampling(x.shape[2], down), _sampling(x.shape[3], along)
    if flip:
        columns = torch.where((draws[2] < 0.5)[:, None, None], columns.flip(1), columns)
    return rows[:, None], columns.transpose(1, 2)[:, None]


def _sampling(side: int, shift: Tensor) -> Tensor:
    """Matrices (B, side, side); row i weighs the pixels around i + shift, (B,) in pixels."""
    place = torch.arange(side, device=shift.device)
    return (1 - (place[:, None] + shift[:, None, None] - place).abs()).clamp_min(0)
