"""Stable error-minimising noise: like ``rem``, against random changes in place of adversarial ones.

Source: Liu, Xu, Chen, Sun, "Stable Unlearnable Example: Enhancing the Robustness of Unlearnable
Examples via Stable Error-Minimizing Noise", AAAI 2024, arXiv:2311.13091. Constants are those of
the released CIFAR-10 scripts, the same as those of ``rem``. The one difference: a uniform draw
attacks each view of a noise step, so that a step costs 61 passes an image, not 561. The surrogate
is trained adversarially all the same.

Departures: see ``attacks/_robust_min.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks._robust_min import RobustMin
from benchmark import Context, attack


@attack(
    version=1,
    cite="arXiv:2311.13091",
    norm="linf",
    # 61 passes an image and step, at the defaults
    effort={"steps": 61 * 128 / 50000, "": 50.0},
    toy={
        "surrogate": "resnet8_w16_s2",
        "steps": 12,
        "batch_size": 16,
        "eot_samples": 2,
        "noise_steps": 1,
        "attack_steps": 1,
    },
)
class SEM(RobustMin):
    """Error-minimising noise that withstands random changes of the images.

    Parameters:
        radius: of the uniform draws and of the attacks in adversarial training, L-inf in [0, 1]
            units; 0 is the non-robust setting.
        attack_steps: PGD steps up the loss, of adversarial training.
    """

    def attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, ctx: Context
    ) -> Tensor:
        return self.jitter(x, generator)
