"""Expectation over transformation: random crops and flips of a whole batch.

A gradient flows back through them to the images. A view is an index gather; autograd supplies its
adjoint, a scatter-add into the images. Several views of an image stand in one batch, and their
gradients add up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.training.crop import cropped

PAD = 4  # pixels of black around an image, from which the crop is taken


def draw_views(count: int, hflip: bool, generator: torch.Generator) -> Tensor:
    """Draw the parameters of ``count`` random views.

    Args:
        hflip: whether a mirror image belongs to the same class; if not, no view is mirrored.
        generator: on the CPU.

    Returns:
        int64 (count, 3) on the CPU: the crop's top and left, 0..2 * PAD, and 1 if it is mirrored.
    """
    corner = torch.randint(2 * PAD + 1, (count, 2), generator=generator)
    flip = torch.zeros(count, 1, dtype=torch.int64)
    if hflip:
        flip = torch.randint(2, (count, 1), generator=generator)
    return torch.cat([corner, flip], 1)


def views(x: Tensor, drawn: Tensor) -> Tensor:
    """Cut the views with the parameters ``drawn``; view ``k`` shows image ``k % B``.

    Args:
        x: float (B, C, H, W).
        drawn: of ``draw_views``, (J * B, 3).

    Returns:
        float (J * B, C, H, W) in channels-last memory.
    """
    batch, _, height, width = x.shape
    top, left, flip = drawn.to(x.device, non_blocking=True).unbind(1)
    image = torch.arange(len(drawn), device=x.device) % batch
    rows = F.pad(x, (PAD, PAD, PAD, PAD)).permute(0, 2, 3, 1)  # (B, H + 2 * PAD, W + 2 * PAD, C)
    return cropped(rows, image, top, left, height, width, flip).permute(0, 3, 1, 2)
