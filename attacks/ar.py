"""Autoregressive perturbations: a pixel of the noise is a fixed linear function of earlier ones.

Earlier pixels are its neighbours above and to the left.

Source: Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, Jacobs, "Autoregressive
Perturbations for Data Poisoning", NeurIPS 2022, arXiv:2206.03693. A class has one process, a 3x3
kernel for each channel; its images differ in the random cells that the process starts from.

Departures:
- The process is linear in its starting cells, so the noise is one matrix product an image. The
  matrix is made once a class by running the process on unit vectors along anti-diagonals, whose
  cells do not depend on each other. The release visits pixel after pixel.
- Images are rounded to nearest; noise that rounding makes more than 0.9 % longer than the budget is
  shortened by 1 % at a time.
- Kernels are our own draws, accepted by the rule of the released search. One set serves every
  number of classes: its first ten kernels differ by the 10 that the release asks of ten classes,
  later ones by the 3 that it asks of a hundred.
- A kernel with any trial signal that overflows is refused. The release looks for that in the last
  trial only: its first kernels for 100 classes hold one that turns its class black (issue 3 of the
  release).
- Images with a side above 32 pixels are tiled: processes whose kernels sum to 1 are unstable, and
  on 224 pixels most would put nearly all of their energy into one corner. The release has no such
  sets but STL-10 and gives no result for ImageNet.
- ``eps`` is the L2 budget at 3x32x32 and grows with the square root of the image's size: 3.0 at 96
  pixels, as released, and 7.0 at 224, where nothing is published.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from attacks._ar_kernels import TILE, search, shipped, signal_map
from attacks._l2 import rounded_within
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import at_once, chunks, to_float


@attack(version=3, cite="arXiv:2206.03693", norm="l2")
class AR(Attack):
    """Add noise that an autoregressive process of the image's class has drawn.

    Parameters:
        eps: L2 budget of an image of 3x32x32, in [0, 1] units; other sizes in proportion to the
            root of their size.
        response: how strongly two processes differ at least: the summed positive response of a
            signal of length 1 of the later one to the earlier one's filter. 0 means 10 among the
            first ten processes and 3 for later ones.
        kernels_seed: what the kernels are drawn from, whatever the data set and the run's seed.
            uebench ships those of 0 for up to 100 classes; others are searched for at run time.
    """

    eps: Annotated[float, Interval(ge=0.5, le=4)] = 1.0
    response: Annotated[float, Interval(ge=0, le=100)] = 0.0
    kernels_seed: Annotated[int, Ge(0)] = 0

    def budget(self, info: DatasetInfo) -> float:
        return self.eps * math.sqrt(info.size / 3072)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        kernels = self.kernels(data.info, ctx)
        out = torch.empty_like(data.x)
        for label, kernel in enumerate(kernels):
            members = (data.y == label).nonzero().flatten()
            generator = ctx.generator(f"class {label}")
            process = signal_map(kernel, TILE)
            # fours draw whole runs of torch's 16, so parts draw as the whole
            count = max(4, at_once(data.x) // 4 * 4)
            for part in chunks(len(members), count):
                noise = self.noise(data.info, process, len(members[part]), generator)
                clean = to_float(data.x[members[part]])
                out[members[part]] = rounded_within(clean, noise, self.budget(data.info))
            ctx.progress((label + 1) / len(kernels), f"class {label + 1} of {len(kernels)}")
        return data.with_x(out)

    def noise(
        self, info: DatasetInfo, process: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Draw ``count`` noises of one class, float32 (count, C, H, W), each as long as the budget.

        Args:
            process: of ``signal_map``.
        """
        down, across = -(-info.height // TILE), -(-info.width // TILE)
        shape = (count, info.channels, down * across, process.shape[1])
        start = torch.randn(shape, generator=generator)
        tiles = torch.einsum("nctf,cfp->nctp", start, process.float())
        grid = tiles.view(count, info.channels, down, across, TILE, TILE)
        whole = grid.transpose(3, 4).reshape(count, info.channels, down * TILE, -1)
        noise = whole[:, :, : info.height, : info.width]
        length: Tensor = noise.flatten(1).norm(dim=1)
        return noise * (self.budget(info) / length)[:, None, None, None]

    def kernels(self, info: DatasetInfo, ctx: Context) -> Tensor:
        """A kernel for each class, float64 (num_classes, C, 3, 3), the same for every data set.

        Raises:
            ValueError: if the search finds no kernels that differ enough.
        """
        ready = shipped().kernels
        defaults = not self.kernels_seed and not self.response
        if defaults and info.channels == 3 and info.num_classes <= len(ready):
            return ready[: info.num_classes]

        def tell(found: int, tried: int) -> None:
            ctx.progress(0.0, f"{found} of {info.num_classes} processes found, {tried:,} tried")

        found = search(info.num_classes, info.channels, self.kernels_seed, self.response, tell)
        return found.kernels
