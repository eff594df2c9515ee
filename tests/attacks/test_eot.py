"""Random views of a batch, and their gradients, are those of a loop over images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks._eot import PAD, draw_views, views


def one_view(image: Tensor, top: int, left: int, flip: int) -> Tensor:
    """(C, H, W) -> (C, H, W), by slices."""
    height, width = image.shape[1:]
    crop = F.pad(image, (PAD, PAD, PAD, PAD))[:, top : top + height, left : left + width]
    return crop.flip(2) if flip else crop


def naive(x: Tensor, drawn: Tensor) -> Tensor:
    return torch.stack([one_view(x[k % len(x)], *how) for k, how in enumerate(drawn.tolist())])


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (5, 1, 7, 12)])
def test_views_equal_a_loop_over_images(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.rand(shape, generator=generator)
    drawn = draw_views(3 * len(x), True, generator)
    assert torch.equal(views(x, drawn), naive(x, drawn))
    assert views(x, drawn).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (5, 1, 7, 12)])
def test_the_gradient_flows_back_as_through_the_loop(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    x = torch.rand(shape, generator=generator).requires_grad_(True)
    drawn = draw_views(3 * len(x), True, generator)
    back = torch.randint(
        -9, 10, (len(drawn), *shape[1:]), generator=generator
    ).float()  # whole numbers, whose sums are exact
    (fast,) = torch.autograd.grad(views(x, drawn), x, back)
    (slow,) = torch.autograd.grad(naive(x, drawn), x, back)
    assert torch.equal(fast, slow)
    assert float(fast.abs().sum()) > 0


def test_all_crops_occur_and_half_of_the_views_are_mirrored(generator: torch.Generator) -> None:
    drawn = draw_views(4000, True, generator)
    assert [set(drawn[:, i].tolist()) for i in range(3)] == [set(range(9)), set(range(9)), {0, 1}]
    assert 0.45 < float(drawn[:, 2].float().mean()) < 0.55


def test_no_view_is_mirrored_where_that_changes_the_class(generator: torch.Generator) -> None:
    assert not draw_views(100, False, generator)[:, 2].any()
