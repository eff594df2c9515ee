"""Class-wise convolutions: every image of a class is filtered with one small random kernel.

Source: Sadasivan, Soltanolkotabi, Feizi, "CUDA: Convolution-based Unlearnable Datasets", CVPR
2023, arXiv:2303.04278. The name has nothing to do with GPUs. There is no bound on the change.

Departures:
- The padding is (size - 1) / 2 on each side, so that images keep their size. The release pads by 1
  whatever the size.
- Images are rounded to nearest, not truncated.
- The brightest value of an image becomes 255 as in the release; an image that is black stays black.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional as F

from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import at_once, chunks, to_float, to_uint8


@attack(version=1, cite="arXiv:2303.04278", norm="none")
class CUDA(Attack):
    """Filter the images of each class with a random kernel of its own.

    Parameters:
        size: side of the kernels in pixels, odd; 9 is published for 224-pixel images.
        blur: upper end of a kernel's entries, one of which is then set to 1; 0.06 is published for
            224-pixel images.
    """

    size: Annotated[int, Ge(3)] = 3  # with 1 all classes would have the same kernel
    blur: Annotated[float, Interval(gt=0, lt=1)] = 0.3

    def __post_init__(self) -> None:
        if self.size % 2 == 0:
            raise ValueError(f"size={self.size}, expected an odd number of pixels")

    def check(self, info: DatasetInfo) -> None:
        if self.size > min(info.height, info.width):
            raise ValueError(
                f"size={self.size} is larger than images of {info.height}x{info.width} pixels; "
                "3 is usual at 32"
            )

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        kernels = self.kernels(data.info, ctx)
        out = torch.empty_like(data.x)
        for part in chunks(len(data), at_once(data.x)):
            out[part] = to_uint8(filtered(to_float(data.x[part]), kernels[data.y[part]]))
            ctx.progress(part.stop / len(data))
        return data.with_x(out)

    def kernels(self, info: DatasetInfo, ctx: Context) -> Tensor:
        """Draw a kernel for each class, float32 (num_classes, size, size).

        One entry is 1, the others are in [0, blur).
        """
        generator = ctx.generator("kernels")
        kernels = torch.rand(info.num_classes, self.size**2, generator=generator) * self.blur
        largest = torch.randint(self.size**2, (info.num_classes,), generator=generator)
        kernels[torch.arange(info.num_classes), largest] = 1
        return kernels.view(-1, self.size, self.size)


def filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its kernel and divide it by its own maximum.

    All channels of an image have the same kernel.

    Args:
        x: float (N, C, H, W) in [0, 1].
        kernels: float (N, k, k), not negative.
    """
    n, channels = x.shape[:2]
    grouped = kernels.repeat_interleave(channels, 0)[:, None]  # a group is one channel of one image
    out = F.conv2d(
        x.reshape(1, n * channels, *x.shape[2:]),
        grouped,
        padding=kernels.shape[-1] // 2,
        groups=n * channels,
    ).view_as(x)
    return out / out.flatten(1).amax(1).clamp(min=1e-12)[:, None, None, None]
