"""Batched operations on images that methods share: JPEG, grayscale, fewer bits, blur, and two measures of similarity.

Operations take and return uint8 (N, C, H, W) and leave their argument as it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import at_once, chunks, to_float, to_uint8

LUMA = (
    19595,
    38470,
    7471,
)  # red, green, blue in 65536ths: ITU-R 601, as Pillow's convert("L") has them
SSIM_WINDOW = 7


def grayscale(x: Tensor) -> Tensor:
    """The luminance of Pillow's ``convert("L")``, byte for byte, copied to all three channels; one-channel images stay.

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
    """Writes each image as a JPEG in memory with Pillow (4:2:0 subsampling) and reads it back.

    Args:
        quality: 1..100, Pillow's scale.
        workers: threads; Pillow leaves the interpreter lock while it codes.

    Raises:
        ValueError: if ``quality`` is out of range or the images have neither one nor three channels.
    """
    _check(x)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality {quality}, expected 1..100")
    rows = x.permute(0, 2, 3, 1).cpu().contiguous().numpy()  # (N, H, W, C)
    out = np.empty_like(rows)

    def code(part: slice) -> None:
        for i in range(part.start, part.stop):
            buffer = io.BytesIO()
            Image.fromarray(rows[i].squeeze(-1) if rows.shape[-1] == 1 else rows[i]).save(
                buffer, "JPEG", quality=quality
            )
            out[i] = np.asarray(Image.open(buffer)).reshape(out[i].shape)

    parts = chunks(len(rows), max(1, -(-len(rows) // max(workers, 1))))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(code, parts))
    else:
        for part in parts:
            code(part)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous().to(x.device)


def reduce_bits(x: Tensor, bits: int) -> Tensor:
    """Keeps the top ``bits`` (1..8) bits of each value and clears the others.

    Raises:
        ValueError: if ``bits`` is out of range.
    """
    _check(x, any_channels=True)
    if not 1 <= bits <= 8:
        raise ValueError(f"{bits} bits, expected 1..8")
    return x & ((0xFF << (8 - bits)) & 0xFF)


def blur(x: Tensor, sigma: float) -> Tensor:
    """A 3x3 Gaussian of standard deviation ``sigma`` pixels with mirrored borders, rounded as torchvision's ``gaussian_blur`` does.

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
    """Applies a uint8 operation to float images in [0, 1]: rounds to uint8, operates, and goes back to the dtype of ``x``."""
    return to_float(operation(to_uint8(x.float()))).to(x.dtype)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, float64 (N,); infinite where the two are equal.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_pair(a, b)
    error = torch.empty(len(a), dtype=torch.float64)
    for part in chunks(len(a), at_once(a)):
        error[part] = (a[part].double() - b[part].double()).square().flatten(1).mean(1).cpu()
    return 10 * torch.log10(255**2 / error)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, float64 (N,); 1 where the two are equal.

    Windows are 7x7, uniform and wholly inside the image, with sample variances and K1=0.01, K2=0.03; the mean is over windows
    and channels. These are the defaults of scikit-image. The measure is Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004.

    Raises:
        ValueError: if the shapes differ or a side is shorter than 7 pixels.
    """
    _check_pair(a, b)
    if min(a.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"images of {a.shape[2]}x{a.shape[3]} pixels are smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window of SSIM"
        )
    out = torch.empty(len(a), dtype=torch.float64)
    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for part in chunks(len(a), -(-at_once(a) // 8)):  # float64 with five window means
        p, q = a[part].double(), b[part].double()
        mean_p, mean_q = _window_mean(p), _window_mean(q)
        var_p = sample * (_window_mean(p * p) - mean_p**2)
        var_q = sample * (_window_mean(q * q) - mean_q**2)
        cov = sample * (_window_mean(p * q) - mean_p * mean_q)
        value = (
            (2 * mean_p * mean_q + c1)
            * (2 * cov + c2)
            / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
        )
        out[part] = value.flatten(1).mean(1).cpu()
    return out


def _window_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, SSIM_WINDOW, stride=1)


def _check(x: Tensor, any_channels: bool = False) -> None:
    if x.dtype != torch.uint8 or x.ndim != 4:
        raise TypeError(
            f"images are {x.dtype} {tuple(x.shape)}, expected uint8 (N, C, H, W); for floats use on_floats"
        )
    if not any_channels and x.shape[1] not in (1, 3):
        raise ValueError(
            f"images have {x.shape[1]} channels, expected 1 (gray) or 3 (red, green, blue)"
        )


def _check_pair(a: Tensor, b: Tensor) -> None:
    _check(a, any_channels=True)
    _check(b, any_channels=True)
    if a.shape != b.shape:
        raise ValueError(
            f"cannot compare images of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected equal shapes"
        )
