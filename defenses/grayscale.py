"""Make training images gray, the part of Image Shortcut Squeezing against smooth perturbations.

Source: Liu, Zhao, Larson, "Image Shortcut Squeezing: Countering Perturbative Availability Poisons
with Compression", ICML 2023, arXiv:2301.13838. Reported with ResNet-18 on CIFAR-10
(%): clean 92.41, EM 93.01, LSP 82.47, OPS 42.44.

Departures:
- Luminance is rounded as in Pillow and ISS. D-VAE's code (arXiv:2405.01460) computes it from
  floats in each epoch, after crop and mirroring, with other weights and without rounding.
- The images are transformed once, before training. The operation draws nothing at random, so the
  victim sees the same images as with a transform in each epoch.
- ``test=true`` is an option of uebench in this form: the release has such a switch but reports
  untransformed test images.
"""

from __future__ import annotations

from torch import Tensor

from benchmark import Context, Defense, ImageSet, defense
from benchmark.training.images import grayscale, on_floats


@defense(version=1, cite="arXiv:2301.13838")
class Grayscale(Defense):
    """Replace each training image by its luminance, in all three channels.

    Parameters:
        test: transform the test images too.
    """

    test: bool = False

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.map(grayscale)

    def at_test(self, x: Tensor) -> Tensor:
        return on_floats(x, grayscale) if self.test else x
