"""The ball of allowed changes around an image, for projected gradient steps.

Attacks and adversarial training share it. The caller writes out each step along a gradient, so that
its direction can be read: ``ball.project(current - length * ball.direction(gradient), x)`` lowers a
loss, and with ``+`` it raises the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ball:
    """The changes of one image that are at most ``eps`` in ``norm``.

    All methods take and return float tensors (B, C, H, W), and treat each image of a batch for
    itself. An image is in [0, 1], and ``eps`` is in the same units.
    """

    norm: Literal["linf", "l2"]
    eps: float

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest direction of length 1.

        It is the sign of the gradient (linf), or the gradient over its length (l2). An L2 gradient
        of 0 stays 0. NaN stays NaN, so that a diverged network is noticed.
        """
        if self.norm == "l2":
            gradient = gradient.double()  # float32 would lose the squares of small gradients
            return (gradient / lengths(gradient).clamp_min(1e-300)).float()
        return gradient.sign() + 0 * gradient  # the sign of NaN is 0, which would hide it

    def within(self, delta: Tensor) -> Tensor:
        """Return the changes of the ball that are nearest to ``delta``."""
        if self.norm == "l2":
            return delta * (self.eps / lengths(delta)).clamp(max=1)
        return delta.clamp(-self.eps, self.eps)

    def project(self, moved: Tensor, x: Tensor) -> Tensor:
        """Return the images of the ball around ``x`` nearest to ``moved``, clipped to [0, 1]."""
        return (x + self.within(moved - x)).clamp_(0, 1)

    def random_change(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a change for each image of ``x``, uniform in the ball.

        Args:
            x: gives the shape and the device.
            generator: on the CPU, so that every device gets the same numbers.

        Returns:
            Changes within the ball, in channels-last memory.
        """
        if self.norm == "l2":
            drawn = self.direction(torch.randn(x.shape, generator=generator))
            share = torch.rand(len(x), 1, 1, 1, generator=generator)  # share of the ball's volume
            drawn *= self.eps * share ** (1 / x[0].numel())
        else:
            drawn = torch.empty(x.shape).uniform_(-self.eps, self.eps, generator=generator)
        return drawn.to(x.device, memory_format=torch.channels_last, non_blocking=True)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with a ``random_change``, clipped to [0, 1]."""
        return (x + self.random_change(x, generator)).clamp_(0, 1)

    def normal_start(self, x: Tensor, length: float, generator: torch.Generator) -> Tensor:
        """Return ``x`` with ``length`` times standard normal noise, projected.

        Args:
            length: standard deviation of a value's change, in [0, 1] units.
            generator: on the CPU, so that every device gets the same numbers.
        """
        noise = torch.randn(x.shape, generator=generator).to(x.device, non_blocking=True)
        return self.project(x + length * noise, x)


def lengths(delta: Tensor) -> Tensor:
    """Return the L2 length of each image's change, (B, 1, 1, 1)."""
    found: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return found
