"""Shuffle, crop and mirror batches of a uint8 set on the device, without a loop over images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmark.data import ImageSet
from benchmark.training.crop import cropped


class Batches:
    """Yield the batches of one pass over a set as ``(x, y, index)``.

    ``x`` is float32 (B, C, H, W) in [0, 1], in channels-last memory. ``y`` and ``index`` are int64
    (B,); ``index`` is the position in the set, not in the pass. Each pass draws a new order from
    ``generator``; without a generator the order is that of the set.

    Args:
        data: the images.
        batch_size: the number of images in a batch.
        device: holds the set as long as this object lives. A set that is there already is not
            copied, so the caller must not change it.
        generator: draws order, crops and flips; on the CPU.
        crop: zero padding of the random crop in pixels.
        flip: mirror each image with probability 1/2.
        drop_last: leave out an incomplete last batch, unless it is the only one.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        crop: int = 0,
        flip: bool = False,
        drop_last: bool = False,
    ) -> None:
        self.n = len(data)
        if self.n == 0:
            raise ValueError("the set holds no images")
        self.batch_size = min(batch_size, self.n)
        self.generator = generator
        self.crop, self.flip, self.drop_last = crop, flip, drop_last
        self.height, self.width = data.info.height, data.info.width
        # (N, H, W, C), a view: memory may have no room for another copy of a large set.
        self.x = data.x.to(device).permute(0, 2, 3, 1)
        self.y = data.y.to(device)
        self.device = device

    def __len__(self) -> int:
        full, rest = divmod(self.n, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if self.generator is None:
            order = torch.arange(self.n)
        else:
            order = torch.randperm(self.n, generator=self.generator)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[start : start + self.batch_size]
            here = index.to(self.device, non_blocking=True)  # a GPU still computes the last step
            yield self._images(here, len(index)), self.y[here], here

    def _images(self, index: Tensor, count: int) -> Tensor:
        rows = self.x[index].contiguous()  # (B, H, W, C)
        if self.crop:
            rows = nn.functional.pad(rows, (0, 0, *[self.crop] * 4))
            top, left = self._draw(2 * self.crop + 1, count), self._draw(2 * self.crop + 1, count)
            flip = self._draw(2, count) if self.flip else None
            every = torch.arange(count, device=self.device)
            rows = cropped(rows, every, top, left, self.height, self.width, flip)
        elif self.flip:
            rows = torch.where(self._draw(2, count)[:, None, None, None] == 1, rows.flip(2), rows)
        return rows.to(torch.float32).div_(255).permute(0, 3, 1, 2)

    def _draw(self, high: int, count: int) -> Tensor:
        drawn = torch.randint(high, (count,), generator=self.generator)
        return drawn.to(self.device, non_blocking=True)
