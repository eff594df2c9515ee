"""Crop and mirror the images of a batch in one gather."""

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
    """Cut a window of each image; gradients flow back into the images.

    Args:
        padded: images, (N, at least height, at least width, C), of any type.
        image: int64 (B,), the image that each window is cut from.
        top, left: int64 (B,), the position of each window in pixels.
        height, width: the size of the windows in pixels.
        flip: int64 (B,), 1 where the window is mirrored; None mirrors no window.

    Returns:
        The windows, (B, height, width, C).
    """
    down = top[:, None] + torch.arange(height, device=padded.device)  # (B, H)
    along = left[:, None] + torch.arange(width, device=padded.device)  # (B, W)
    if flip is not None:
        along = torch.where(flip[:, None] == 1, along.flip(1), along)
    return padded[image[:, None, None], down[:, :, None], along[:, None, :]]
