"""Robust error-minimising noise: it keeps the loss small even in adversarial training.

Source: Fu, He, Liu, Shen, Tao, "Robust Unlearnable Examples: Protecting Data Privacy Against
Adversarial Learning", ICLR 2022, arXiv:2203.14533. Constants are those of the released CIFAR-10
scripts (noise within 8/255, attacks within 4/255). ImageNet-100 has 3,000 steps,
``lr_every=1200``, 4 views, 7 noise steps of 2/255 and 7 attack steps of 1/255.

Departures: see ``attacks/_robust_min.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks._robust_min import RobustMin
from benchmark import Context, attack


@attack(
    version=1,
    cite="arXiv:2203.14533",
    norm="linf",
    # 561 passes an image and step, at the defaults
    effort={"steps": 561 * 128 / 50000, "": 550.0},
    toy={
        "surrogate": "resnet8_w16_s2",
        "steps": 12,
        "batch_size": 16,
        "eot_samples": 2,
        "noise_steps": 1,
        "attack_steps": 1,
    },
)
class REM(RobustMin):
    """Error-minimising noise that withstands adversarial examples found by PGD."""

    def attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, ctx: Context
    ) -> Tensor:
        return self.ascend(model, x, y, generator, ctx)
