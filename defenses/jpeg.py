"""Compress training images, the part of Image Shortcut Squeezing against fine perturbations.

Source: Liu, Zhao, Larson, "Image Shortcut Squeezing: Countering Perturbative Availability Poisons
with Compression", ICML 2023, arXiv:2301.13838. Reported with ResNet-18 on CIFAR-10
and quality 10 (%): clean 85.38, EM 81.50, LSP 83.01, OPS 82.53.

Departures:
- The images are coded once, before training. The operation draws nothing at random, so the victim
  sees the same images as with a transform in each epoch.
- The releases pass a misspelt ``optimice`` to Pillow, which ignores it; it is not passed here, and
  the pixels are the same.
- ``test=true`` is an option of uebench in this form: the release has such a switch but reports
  untransformed test images.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from benchmark import Context, Defense, ImageSet, defense
from benchmark.training.images import jpeg, on_floats


@defense(version=1, cite="arXiv:2301.13838")
class JPEG(Defense):
    """Code each training image as a JPEG of low quality, with Pillow's own bytes.

    Parameters:
        quality: 1..100, Pillow's scale.
        test: transform the test images too.
    """

    quality: Annotated[int, Interval(ge=1, le=100)] = 10
    test: bool = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.map(lambda x: jpeg(x, self.quality, ctx.workers))

    def at_test(self, x: Tensor) -> Tensor:
        return on_floats(x, lambda images: jpeg(images, self.quality)) if self.test else x
