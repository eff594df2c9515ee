"""Linearly separable perturbations: coarse colour patches from a Gaussian cloud for each class.

The clouds are far from each other.

Source: Yu, Zhang, Chen, Yin, Liu, "Availability Attacks Create Shortcuts", KDD 2022,
arXiv:2111.00898. The cloud is the one that scikit-learn's ``make_classification`` draws when every
feature is informative and a class is one cluster.

Departures:
- The sampler is our own, so that a poison does not change with the version of scikit-learn. It
  shuffles neither rows nor columns: rows of a class are independent draws, and vertices are drawn
  uniformly.
- The attack draws exactly as many rows for a class as it has images; the release draws equal
  classes and doubles their number for sets with unequal ones.
- Images are rounded to nearest, not truncated. A patch has one value, so that rounding moves all
  its pixels alike and an image's L2 by about 0.7 % (one standard deviation at 32 px). Rows that
  would end more than 0.9 % above the budget are drawn again.
- Some papers label this budget "L2 1.0". The release and this attack use (6/255) * sqrt(d): 1.304
  at 32 px.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import L2_AIM, at_once, chunks

# in levels; so near a half, adding the image may round either way, and the longer way is assumed
NEAR_TIE = 1e-3
TRIES = 100  # an ordinary budget needs about five


@attack(version=1, cite="arXiv:2111.00898", norm="l2")
class LSP(Attack):
    """Add class-coded colour patches that a linear model can tell apart.

    Parameters:
        rms: root mean square of an image's change in [0, 1] units; the L2 budget is
            rms * sqrt(C * H * W).
        patch: side of a patch in pixels; it must divide height and width.
        class_sep: half the side of the hypercube whose vertices are the class centres; the spread
            within a class is about 4 at 32 px.
    """

    rms: Annotated[float, Interval(gt=0, lt=1)] = 6 / 255
    patch: Annotated[int, Ge(1)] = 8
    # squares of more than 1e6 leave single precision
    class_sep: Annotated[float, Interval(gt=0, le=1e6)] = 10.0

    def budget(self, info: DatasetInfo) -> float:
        return self.rms * math.sqrt(info.size)

    def check(self, info: DatasetInfo) -> None:
        if info.height % self.patch or info.width % self.patch:
            raise ValueError(
                f"patch={self.patch} does not divide images of {info.height}x{info.width} pixels; "
                "choose a divisor of both"
            )
        if (features := self._features(info)) < math.log2(info.num_classes):
            raise ValueError(
                f"patch={self.patch} leaves {2**features} vertices for {info.num_classes} classes; "
                "take a smaller patch"
            )

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        info = data.info
        self.check(info)
        centres = self.centres(info, ctx)
        out = torch.empty_like(data.x)
        for label in range(info.num_classes):
            members = (data.y == label).nonzero().flatten()
            generator = ctx.generator(f"class {label}")
            patches = self.patches(info, centres[label], len(members), generator)
            # full-size noise exists for one chunk at a time
            for part in chunks(len(members), at_once(data.x)):
                tall = patches[part].repeat_interleave(self.patch, 2)
                noise = tall.repeat_interleave(self.patch, 3)
                out[members[part]] = data.select(members[part]).perturb(noise).x
            ctx.progress((label + 1) / info.num_classes, f"class {label + 1} of {info.num_classes}")
        return data.with_x(out)

    def centres(self, info: DatasetInfo, ctx: Context) -> Tensor:
        """Draw a vertex of the hypercube for each class, float (num_classes, features).

        All of them differ.
        """
        features = self._features(info)
        generator = ctx.generator("vertices")
        signs: list[tuple[int, ...]] = []
        while len(signs) < info.num_classes:
            vertex = tuple(torch.randint(2, (features,), generator=generator).tolist())
            if vertex not in signs:
                signs.append(vertex)
        return (2.0 * torch.tensor(signs, dtype=torch.float32) - 1) * self.class_sep

    def patches(
        self, info: DatasetInfo, centre: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Draw ``count`` rows of one class, float (count, C, H / patch, W / patch).

        They are scaled so that the full-size L2 is the budget.
        """
        features = self._features(info)
        spread = 2 * torch.rand(features, features, generator=generator) - 1
        length = self.budget(info) / self.patch  # a value fills patch * patch pixels
        rows = torch.zeros(count, features)
        missing = torch.arange(count)
        for _ in range(TRIES):
            draw = torch.randn(len(missing), features, generator=generator) @ spread + centre
            rows[missing] = draw * (length / draw.norm(dim=1, keepdim=True))
            rounded = (rows[missing].abs() * 255 + 0.5 + NEAR_TIE).floor_().norm(dim=1) / 255
            missing = missing[rounded > length * L2_AIM]
            if not len(missing):
                break
        else:
            raise ValueError(
                f"rms={self.rms:g} cannot be rounded to whole levels within 1 % of the L2 budget; "
                "take at least 3/255"
            )
        return rows.view(count, info.channels, info.height // self.patch, info.width // self.patch)

    def _features(self, info: DatasetInfo) -> int:
        return info.size // self.patch**2
