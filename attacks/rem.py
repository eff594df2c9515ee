"""Robust error-minimising noise: noise that keeps the training loss small even for adversarial training.

Source: Fu, He, Liu, Shen, Tao, "Robust Unlearnable Examples: Protecting Data Privacy Against Adversarial Learning", ICLR 2022,
arXiv:2203.14533. Constants are those of the released CIFAR-10 scripts (noise within 8/255, attacks within 4/255). ImageNet-100 has 3,000
steps, ``lr_every=1200``, 4 views, 7 noise steps of 2/255 and 7 attack steps of 1/255.

Departures: see ``attacks/_robust_min.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks._robust_min import RobustMin
from benchmark import Context, ImageSet, attack
from benchmark.catalogue.spec import Value


@attack(version=1, cite="arXiv:2203.14533")
class REM(RobustMin):
    """Error-minimising noise that withstands adversarial examples found by PGD.

    Parameters:
        eps: L-inf budget in [0, 1] units, at most 127/255.
        radius: L-inf radius of the attacks on noisy images, in [0, 1] units; 0 is the non-robust setting.
        steps: model steps.
        lr: of the surrogate's SGD.
        lr_every: model steps after which lr falls to a tenth.
        batch_size: images of a model step and of a part of the final noise.
        eot_samples: views of an image in a noise step.
        noise_steps: sign steps down the loss that make an image's noise.
        noise_step: length of one of them in [0, 1] units.
        attack_steps: PGD steps up the loss, of the attack on each view and of adversarial training.
        attack_step: length of one of them in [0, 1] units.
        surrogate: architecture of the surrogate, a victim's name.
        preset: clean, or official, where the last N mod batch_size images of a random order keep noise of training time.
    """

    norm = "linf"
    effort: ClassVar[Mapping[str, float]] = {
        "steps": 561 * 128 / 50000,
        "": 550.0,
    }  # 561 passes an image and step, at the defaults
    toy: ClassVar[Mapping[str, Value]] = {
        "surrogate": "resnet8_w16_s2",
        "steps": 12,
        "batch_size": 16,
        "eot_samples": 2,
        "noise_steps": 1,
        "attack_steps": 1,
    }
    eps: float = 8 / 255
    radius: float = 4 / 255
    steps: int = 5000
    lr: float = 0.1
    lr_every: int = 2000
    batch_size: int = 128
    eot_samples: int = 5
    noise_steps: int = 10
    noise_step: float = 1.6 / 255
    attack_steps: int = 10
    attack_step: float = 0.8 / 255
    surrogate: str = "resnet18"
    preset: str = "clean"

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        return self.craft(data, ctx)

    def attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, ctx: Context
    ) -> Tensor:
        return self.ascend(model, x, y, generator, ctx)
