"""Blur training images with a Gaussian, a low-pass baseline of the benchmarks.

Source: Liu, Zhao, Larson, "Image Shortcut Squeezing: Countering Perturbative Availability Poisons
with Compression", ICML 2023, arXiv:2301.13838, where it is a
baseline.

Departures:
- The default is sigma 1.0. The release and several benchmarks after it use 0.1, where the side
  weight of the 3x3 window is 2e-22 and nothing changes: their "Gaussian" columns repeat
  "no defense". ``blur[sigma=0.1]`` reproduces them.
- The images are transformed once, before training. The operation draws nothing at random, so the
  victim sees the same images as with a transform in each epoch.
- ``test=true`` is an option of uebench in this form: the release has such a switch but reports
  untransformed test images.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from benchmark import Context, Defense, ImageSet, defense
from benchmark.training.images import blur, on_floats


@defense(version=1, cite="arXiv:2301.13838")
class Blur(Defense):
    """Blur each training image with a 3x3 Gaussian.

    Parameters:
        sigma: standard deviation of the Gaussian in pixels.
        test: transform the test images too.
    """

    sigma: Annotated[float, Gt(0)] = 1.0
    test: bool = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.map(lambda x: blur(x, self.sigma))

    def at_test(self, x: Tensor) -> Tensor:
        return on_floats(x, lambda images: blur(images, self.sigma)) if self.test else x
