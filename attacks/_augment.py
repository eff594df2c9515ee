"""The augmentation of contrastive learning at a chosen strength, differentiable, a batch at once.

It follows the released code of Wang, Zhu, Gao, arXiv:2402.04010: a random part of the image blown
up to its size, mirroring, colour jitter and sometimes no colours. A generator on the CPU draws for
every image, so that every device sees the same views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.training.images import LUMA

TRIES = 10  # boxes drawn for an image; the first that fits into it counts
NARROWEST = 3 / 4  # width to height of a box in pixels; the widest is its inverse


def augment(x: Tensor, strength: float, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Draw a random view of each image; return the images themselves if ``strength`` is 0.

    At strength s a view is
    - a box of 1 - 0.9 s to 1 of the area;
    - mirrored with probability 1/2;
    - changed in its colours with probability 0.8 s: brightness, contrast and saturation by up to
      40 s % and the hue by up to 0.1 s of its circle, in an order that is drawn for the batch;
    - gray with probability 0.2 s.

    Args:
        x: float (B, C, H, W) in [0, 1], with one channel or three; with one channel only
            brightness and contrast change.
        strength: 0..1.
        generator: on the CPU.
        flip: whether a mirror image belongs to the same class; if not, no image is mirrored.

    Returns:
        float (B, C, H, W) in [0, 1], in channels-last memory.

    Raises:
        ValueError: if the images have neither one nor three channels.
    """
    if strength == 0:
        return x
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"images have {x.shape[1]} channels, expected 1 (gray) or 3 (red, green, blue); "
            "strength=0 takes any"
        )
    height, width = x.shape[2:]
    boxes = draw_boxes(len(x), height, width, strength, generator)
    chances = torch.rand(3, len(x), 1, 1, 1, generator=generator)
    jitter = strength * (2 * torch.rand(4, len(x), 1, 1, 1, generator=generator) - 1)
    order = torch.randperm(4, generator=generator).tolist()
    (top, left, tall, wide), (mirror, change, fade), jitter = (
        drawn.to(x.device, x.dtype, non_blocking=True) for drawn in (boxes, chances, jitter)
    )
    rows, columns = _sampling(height, top, tall), _sampling(width, left, wide)
    columns = torch.where(mirror < 0.5 * flip, columns.flip(2), columns)
    with torch.autocast(x.device.type, enabled=False):  # bf16 would round images to eight bits
        view = rows @ x @ columns.transpose(2, 3)
        view = torch.where(change < 0.8 * strength, _change_colours(view, jitter, order), view)
        view = torch.where(fade < 0.2 * strength, _luma(view), view)
    return view.contiguous(memory_format=torch.channels_last)


def draw_boxes(
    count: int, height: int, width: int, strength: float, generator: torch.Generator
) -> Tensor:
    """Draw ``count`` boxes: top, left, height and width as shares of the sides, (4, count).

    A box is the whole image where no try fits.
    """
    area, form, corner = (
        torch.rand(size, count, generator=generator) for size in (TRIES, TRIES, 2)
    )
    area = 1 - 0.9 * strength * area
    form = NARROWEST ** (2 * form - 1)
    squares = [area / form * width / height, area * form * height / width]
    sides = torch.stack(squares).sqrt()  # (2, TRIES, B)
    fits = (sides <= 1).all(0)
    first = fits.int().argmax(0)
    chosen = torch.where(fits.any(0), sides[:, first, torch.arange(count)], 1.0)
    return torch.cat([corner * (1 - chosen), chosen])


def _sampling(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Matrices (B, 1, side, side) that stretch a part of a side to all of it, bilinearly.

    Products with them are what ``grid_sample`` computes with its border padding, and have a
    deterministic gradient on every device.

    Args:
        start, length: of the part, shares of the side, (B,).
    """
    place = torch.arange(side, device=start.device)
    # where each place comes from, in pixels
    source = start[:, None] * side + length[:, None] * (place + 0.5) - 0.5
    return (1 - (source.clamp(0, side - 1)[:, None, :, None] - place).abs()).clamp_min(0)


def _change_colours(x: Tensor, jitter: Tensor, order: list[int]) -> Tensor:
    """Change brightness (0), contrast (1), saturation (2) and hue (3) in ``order``.

    Args:
        jitter: how much of each, (4, B, 1, 1, 1) in -1..1.
    """
    for number in order:
        if number == 3:
            x = turn_hue(x, 0.1 * jitter[3])
            continue
        gray: Tensor | int = 0
        if number == 1:
            gray = _luma(x).mean((2, 3), keepdim=True)
        elif number == 2:
            gray = _luma(x)
        x = clip(x + 0.4 * jitter[number] * (x - gray))  # away from gray, or towards it
    return x


def clip(x: Tensor) -> Tensor:
    """Clip ``x`` to [0, 1] with a gradient that passes where x is just 0 or 1.

    That of ``clamp`` does not pass there, so that black and white could not change.
    """
    return torch.where((x < 0) | (x > 1), x.detach().clamp(0, 1), x)


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Move the hue by ``turn``, a share of its circle, (B, 1, 1, 1).

    Value and saturation, as in HSV, stay. Images of one channel stay as they are.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)  # (B, H, W)
    high, low = x.amax(1), x.amin(1)
    chroma = high - low
    safe = torch.where(chroma > 0, chroma, 1)  # gray has no hue, and its gradient must not be NaN
    sector = torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sector = torch.where(high == red, (green - blue) / safe, sector)
    sector = sector + 6 * turn[:, 0]  # sixths of the circle
    away = torch.stack([(sector + offset) % 6 for offset in (5, 3, 1)], 1)
    return high[:, None] - chroma[:, None] * torch.minimum(away, 4 - away).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    """The luminance, (B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = (weight / sum(LUMA) for weight in LUMA)
    return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]
