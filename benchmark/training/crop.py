"""Random crops and mirror images of a whole batch, as one gather."""

from __future__ import annotations

import torch
from torch import Tensor


def cropped(
    padded: Tensor,
    image: Tensor,
    top: Tensor,
    left: Tensor,
    height: int,
    width: int,
    flip: Tensor | None = None,
) -> Tensor:
    """Cut a window of each image. Its gradient is autograd's: a scatter-add into the images.

    Args:
        padded: images, (N, at least height, at least width, C), of any type.
        image: int64 (B,), which image each window is of.
        top, left: int64 (B,), where each window begins, in pixels.
        flip: int64 (B,), 1 where the window is mirrored; None for no mirror image.

    Returns:
        The windows, (B, height, width, C).
    """
    down = top[:, None] + torch.arange(height, device=padded.device)  # (B, H)
    along = left[:, None] + torch.arange(width, device=padded.device)  # (B, W)
    if flip is not None:
        along = torch.where(flip[:, None] == 1, along.flip(1), along)
    return padded[image[:, None, None], down[:, :, None], along[:, None, :]]
