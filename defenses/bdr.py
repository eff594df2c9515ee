"""Reduce the bit depth of training images, the third squeezer of Image Shortcut Squeezing.

Source: Liu, Zhao, Larson, "Image Shortcut Squeezing: Countering Perturbative Availability Poisons
with Compression", ICML 2023, arXiv:2301.13838.

Departures:
- This is the posterize form of the release: it clears the low bits, so that 2 bits leave 0, 64,
  128 and 192. D-VAE's code floors floats instead and gets five levels, since white stays white.
- The images are transformed once, before training. The operation draws nothing at random, so the
  victim sees the same images as with a transform in each epoch.
- ``test=true`` is an option of uebench in this form: the release has such a switch but reports
  untransformed test images.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from benchmark import Context, Defense, ImageSet, defense
from benchmark.training.images import on_floats, reduce_bits


@defense(version=1, cite="arXiv:2301.13838")
class BDR(Defense):
    """Keep the top bits of each value of the training images.

    Parameters:
        bits: kept bits of each value, 1..8.
        test: transform the test images too.
    """

    bits: Annotated[int, Interval(ge=1, le=8)] = 2
    test: bool = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.map(lambda x: reduce_bits(x, self.bits))

    def at_test(self, x: Tensor) -> Tensor:
        return on_floats(x, lambda images: reduce_bits(images, self.bits)) if self.test else x
