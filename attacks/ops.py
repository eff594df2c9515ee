"""One-pixel shortcut: every image of a class gets one extreme colour at one position.

Source: Wu, Chen, Xie, Huang, "One-Pixel Shortcut: on the Learning Preference of Deep Neural
Networks", ICLR 2023, arXiv:2205.12141. A class takes the pixel and colour that change its images
the most and the most evenly.

Three scores circulate, with d = abs(colour - x) in [0, 1] units and population variances:
- ``pooled``: mean / standard deviation of d over images and channels together. The released code
  has it, and it is the default.
- ``summed``: mean / variance over images of d summed over channels. It is the paper's formula.
- ``diff``: mean - variance of d over images and channels together. A third-party library has it.

Departures:
- The scores come in closed form from the first and second moments of each class. The moments are
  sums of integers, hence exact; the released loop visits each position and colour.
- A pair of position and colour that an earlier class took is left out. The release sets its score
  to 0, which could still win for ``diff``, whose scores may be negative.
- With several pixels a class never takes one position twice. The release may, and then changes
  fewer pixels than asked for.
- The attack takes any number of classes, one or three channels, and images that are not square.
  The release is for 10 classes and squares.
- The first index wins a tie, by row, column, then colour. The release leaves ties to its sort.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import chunks

TINY = 1e-12  # keeps the score of a pixel that is constant in its class finite
# images summed at once in float32: 256 * 255**2 < 2**24, so every partial sum is an exact integer
EXACT = 256


@attack(version=1, cite="arXiv:2205.12141", norm="l0")
class OPS(Attack):
    """Overwrite one pixel of all images of a class with one colour of the RGB cube's corners.

    Parameters:
        criterion: pooled, summed or diff.
        pixels: number of pixels to overwrite in an image.
    """

    criterion: Literal["pooled", "summed", "diff"] = "pooled"
    pixels: Annotated[int, Ge(1)] = 1

    def budget(self, info: DatasetInfo) -> float:
        return float(self.pixels)

    def check(self, info: DatasetInfo) -> None:
        positions = info.height * info.width
        if self.pixels > positions:
            raise ValueError(f"pixels={self.pixels}, but images have {positions}")
        if (wanted := self.pixels * info.num_classes) > (most := positions * 2**info.channels):
            raise ValueError(
                f"{info.num_classes} classes want {wanted} pixels, "
                f"but images have {most} pairs of place and colour"
            )

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        info = data.info
        self.check(info)
        positions = info.height * info.width
        palette = colours(info.channels).to(data.x.device)
        taken = torch.zeros(positions, len(palette), dtype=torch.bool)
        out = data.x.clone()
        for label in range(info.num_classes):
            members = (data.y == label).nonzero().flatten()
            if not len(members):
                continue
            score = self.scores(data, members).masked_fill_(taken, -torch.inf)
            for _ in range(self.pixels):
                best = int(score.argmax())  # the first of equal scores
                position, colour = divmod(best, len(palette))
                if score[position, colour] == -torch.inf:
                    raise ValueError(
                        f"no free pixel is left for class {label}: "
                        f"{info.num_classes} classes want {self.pixels} each"
                    )
                row, column = divmod(position, info.width)
                out[members, :, row, column] = palette[colour].to(torch.uint8) * 255
                taken[position, colour] = True
                score[position] = -torch.inf
            ctx.progress((label + 1) / info.num_classes, f"class {label + 1} of {info.num_classes}")
        return data.with_x(out)

    def scores(self, data: ImageSet, members: Tensor) -> Tensor:
        """The score of each position and colour for a class, float64 (H * W, 2**C).

        Args:
            members: positions of the class's images, int64.
        """
        first, second = moments(data, members)
        n, channels = len(members), data.info.channels
        bits = colours(channels)
        sign = 1 - 2 * bits  # the distance is x from a channel of 0, and 255 - x from one of 255
        # sums of distances over images and channels, in levels; (2**C, H * W) like all that follow
        total = sign @ first + 255 * n * bits.sum(1, keepdim=True)
        if self.criterion == "summed":
            mean = total.double() / (255 * n)
            squares = torch.einsum("kc,kd,cdp->kp", sign, sign, second)
            # the constant does not vary
            variance = (n * squares - (sign @ first) ** 2).double() / (255 * n) ** 2
            return (mean / (variance + TINY)).T.contiguous()
        own = second.diagonal(dim1=0, dim2=1).T  # (C, H * W)
        # (255 - x)**2 = x**2 + 255**2 - 510 x
        squares = own.sum(0) + bits @ (255**2 * n - 510 * first)
        mean = total.double() / (255 * n * channels)
        variance = (n * channels * squares - total**2).double() / (255 * n * channels) ** 2
        score = mean - variance
        if self.criterion == "pooled":
            score = mean / (variance.sqrt() + TINY)
        return score.T.contiguous()


def colours(channels: int) -> Tensor:
    """The corners of the colour cube, int64 (2**channels, channels) of 0 and 1.

    The first channel is the highest bit.
    """
    index = torch.arange(2**channels)
    return torch.stack([index >> (channels - 1 - c) & 1 for c in range(channels)], dim=1)


def moments(data: ImageSet, members: Tensor) -> tuple[Tensor, Tensor]:
    """Exact sums over images of x and of products of two channels.

    They are int64 (C, H * W) and (C, C, H * W).
    """
    channels, positions = data.info.channels, data.info.height * data.info.width
    first = torch.zeros(channels, positions, dtype=torch.int64)
    second = torch.zeros(channels, channels, positions, dtype=torch.int64)
    # at most 16 MB of floats for small images
    for part in chunks(len(members), min(EXACT, max(1, 2**22 // data.info.size))):
        x = data.x[members[part]].flatten(2).float()  # (B, C, H * W)
        first += x.sum(0).long().cpu()
        for c in range(channels):
            for d in range(c, channels):
                product = (x[:, c] * x[:, d]).sum(0).long().cpu()
                second[c, d] += product
                if c != d:
                    second[d, c] += product
    return first, second
