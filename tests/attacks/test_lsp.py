"""What is particular to LSP: exact lengths, coarse patches, separable classes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attacks.lsp import LSP
from benchmark import Context, ImageSet
from benchmark.data import DatasetInfo
from benchmark.running.verify import verify_poison
from support.sets import random_set


def gray_images(
    n: int, classes: int = 10, height: int = 32, width: int = 32, channels: int = 3
) -> ImageSet:
    """Mid-gray images, which no small change clips."""
    data = random_set(n, classes, channels, height, width)
    return data.with_x(torch.full_like(data.x, 128))


def test_length_is_exact_before_clipping(ctx: Context) -> None:
    attack, info = LSP(), gray_images(10).info
    centre = attack.centres(info, ctx)[3]
    patches = attack.patches(info, centre, 200, ctx.generator("rows"))
    full = patches.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert full.shape == (200, 3, 32, 32)
    assert full.flatten(1).norm(dim=1).tolist() == pytest.approx([1.3041324] * 200, rel=1e-5)
    assert attack.budget(info) == pytest.approx(6 / 255 * math.sqrt(3072))


def test_change_is_constant_within_patches_and_within_budget_after_rounding(ctx: Context) -> None:
    data = gray_images(600)
    poisoned = LSP().poison(data, ctx)
    change = (poisoned.x.int() - data.x.int()).view(600, 3, 4, 8, 4, 8)
    assert torch.equal(change, change[:, :, :, :1, :, :1].expand_as(change))
    facts = verify_poison(data, poisoned, LSP())
    assert facts["l2_max"] is not None
    assert 1.0 < facts["l2_max"] / LSP().budget(data.info) <= 1.01


def test_patches_lie_where_the_rows_say(ctx: Context) -> None:
    data = gray_images(20, classes=2, height=16, width=24)
    attack = LSP()
    rows = attack.patches(
        data.info,
        attack.centres(data.info, ctx)[1],
        int((data.y == 1).sum()),
        ctx.generator("class 1"),
    )
    change = (attack.poison(data, ctx).x.float() - 128)[data.y == 1] / 255
    assert rows.shape[1:] == (3, 2, 3)
    assert torch.allclose(change[:, :, ::8, ::8], rows, atol=0.6 / 255)


def test_classes_are_separated_by_their_means(toy10: ImageSet, ctx: Context) -> None:
    data = gray_images(400)
    change = (LSP().poison(data, ctx).x.float() - data.x.float()).flatten(1)
    means = torch.stack([change[data.y == label].mean(0) for label in range(10)])
    assert torch.equal(torch.cdist(change, means).argmin(1), data.y)


@pytest.mark.parametrize("classes", [2, 8, 300])
def test_vertices_are_distinct(classes: int, ctx: Context) -> None:
    size = 8 if classes <= 8 else 32  # 8 px leave 3 features, hence exactly 8 vertices
    centres = LSP().centres(gray_images(classes, classes, size, size).info, ctx)
    assert len(set(map(tuple, centres.tolist()))) == classes
    assert set(centres.flatten().tolist()) == {-10.0, 10.0}


def test_noise_of_a_class_does_not_depend_on_the_others(ctx: Context) -> None:
    data = gray_images(60, classes=3)
    alone = data.select((data.y == 1).nonzero().flatten())
    assert torch.equal(LSP().poison(data, ctx).x[data.y == 1], LSP().poison(alone, ctx).x)


def test_unequal_classes_gray_images_and_absent_classes(ctx: Context) -> None:
    data = gray_images(30, channels=1)
    data = ImageSet(data.x, torch.tensor([0] * 25 + [7] * 5), data.info)
    poisoned = LSP(patch=4).poison(data, ctx)
    assert verify_poison(data, poisoned, LSP(patch=4))["changed"] == 1.0


def test_errors_say_what_to_do(ctx: Context) -> None:
    with pytest.raises(ValueError, match="write 6/255, not 6"):
        LSP(rms=6.0)
    with pytest.raises(ValueError, match="patch=0"):
        LSP(patch=0)
    with pytest.raises(ValueError, match="patch=5 does not divide images of 32x32 pixels"):
        LSP(patch=5).poison(gray_images(10), ctx)
    with pytest.raises(ValueError, match="leaves 8 vertices for 10 classes; take a smaller patch"):
        LSP().poison(gray_images(10, height=8, width=8), ctx)
    big: DatasetInfo = replace(gray_images(10).info, height=64, width=64)
    with pytest.raises(ValueError, match="cannot be rounded"):
        LSP(rms=0.5 / 255).patches(big, LSP().centres(big, ctx)[0], 50, ctx.generator("rows"))
