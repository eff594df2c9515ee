"""Image operations on batches that methods share: JPEG, grayscale, fewer bits, blur.

Operations take and return uint8 (N, C, H, W) and do not change their argument.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from joblib import Parallel, delayed
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import chunks, to_float, to_uint8

# Weights of red, green and blue in 65536ths (ITU-R 601), as in Pillow's convert("L").
LUMA = (19595, 38470, 7471)


def grayscale(x: Tensor) -> Tensor:
    """Replace all three channels with the luminance, byte for byte as Pillow's ``convert("L")``.

    Images of one channel stay as they are.

    Raises:
        ValueError: if the images have neither one nor three channels.
    """
    _check(x)
    if x.shape[1] == 1:
        return x.clone()
    wide = x.to(torch.int32)
    luma = (wide[:, 0] * LUMA[0] + wide[:, 1] * LUMA[1] + wide[:, 2] * LUMA[2] + 32768) >> 16
    return luma.to(torch.uint8).unsqueeze(1).repeat(1, 3, 1, 1)


def jpeg(x: Tensor, quality: int = 10, workers: int = 1) -> Tensor:
    """Write each image as a JPEG in memory with Pillow (4:2:0 subsampling) and read it back.

    Args:
        quality: 1..100, Pillow's scale.
        workers: the number of threads; Pillow releases the interpreter lock while it codes.

    Raises:
        ValueError: if ``quality`` is out of range or the images have neither one nor three
            channels.
    """
    _check(x)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality {quality}, expected 1..100")
    rows = x.permute(0, 2, 3, 1).cpu().contiguous().numpy()  # (N, H, W, C)
    out = np.empty_like(rows)

    def code(part: slice) -> None:
        for i in range(part.start, part.stop):
            buffer = io.BytesIO()
            image = rows[i].squeeze(-1) if rows.shape[-1] == 1 else rows[i]
            Image.fromarray(image).save(buffer, "JPEG", quality=quality)
            out[i] = np.asarray(Image.open(buffer)).reshape(out[i].shape)

    workers = max(workers, 1)
    parts = chunks(len(rows), max(1, -(-len(rows) // workers)))
    Parallel(n_jobs=workers, require="sharedmem")(delayed(code)(part) for part in parts)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous().to(x.device)


def reduce_bits(x: Tensor, bits: int) -> Tensor:
    """Keep the top ``bits`` (1..8) bits of each value and clear the others.

    Raises:
        ValueError: if ``bits`` is out of range.
    """
    _check(x, any_channels=True)
    if not 1 <= bits <= 8:
        raise ValueError(f"{bits} bits, expected 1..8")
    return x & ((0xFF << (8 - bits)) & 0xFF)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur with a 3x3 Gaussian of standard deviation ``sigma`` pixels and mirrored borders.

    The result is rounded as in torchvision's ``gaussian_blur``.

    Raises:
        ValueError: if ``sigma`` is not positive.
    """
    _check(x, any_channels=True)
    if not sigma > 0:
        raise ValueError(f"blur of sigma {sigma} pixels, expected a positive number")
    line = torch.exp(-0.5 * (torch.linspace(-1, 1, 3, device=x.device) / sigma) ** 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x.to(torch.float32), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel, groups=x.shape[1]).round_().clamp_(0, 255).to(torch.uint8)


def on_floats(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a uint8 operation to float images in [0, 1].

    The images are rounded to uint8 before the operation, and get the dtype of ``x`` after it.
    """
    return to_float(operation(to_uint8(x.float()))).to(x.dtype)


def _check(x: Tensor, any_channels: bool = False) -> None:
    if x.dtype != torch.uint8 or x.ndim != 4:
        raise TypeError(
            f"images are {x.dtype} {tuple(x.shape)}, expected uint8 (N, C, H, W); "
            "for floats use on_floats"
        )
    if not any_channels and x.shape[1] not in (1, 3):
        raise ValueError(
            f"images have {x.shape[1]} channels, expected 1 (gray) or 3 (red, green, blue)"
        )
