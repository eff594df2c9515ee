"""Rounding of changes within an L2 budget."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.data import L2_AIM, to_float, to_uint8


def rounded_within(x: Tensor, delta: Tensor, length: float) -> Tensor:
    """Add changes to images and round, uint8; shorten what rounding makes too long.

    A change that is too long is shortened by 1 % at a time until it fits.

    Args:
        x: clean, float (B, C, H, W) in [0, 1].
        delta: of the same shape, finite.
        length: the L2 budget of an image, in [0, 1] units.
    """
    while True:
        out = to_uint8(x + delta)
        change = torch.linalg.vector_norm(to_float(out) - x, dim=(1, 2, 3), keepdim=True)
        long = change > L2_AIM * length
        if not bool(long.any()):
            return out
        delta = torch.where(long, 0.99 * delta, delta)
