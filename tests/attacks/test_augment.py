"""The contrastive augmentation: its parts against torchvision and naive code, odds, gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as published

from attacks import _augment
from attacks._augment import TRIES, augment, clip, draw_boxes, turn_hue
from benchmark import Context


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colours(count: int, side: int = 8, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=generator(1))


def test_no_strength_no_change() -> None:
    x = colours(2)
    assert augment(x, 0.0, generator()) is x


@pytest.mark.parametrize(
    ("strength", "height", "width"), [(0.6, 32, 32), (1.0, 32, 32), (0.1, 20, 24)]
)
def test_a_box_is_the_first_drawn_that_fits(strength: float, height: int, width: int) -> None:
    count = 200
    boxes = draw_boxes(count, height, width, strength, generator())
    drawn = generator()
    areas, forms, corners = (torch.rand(size, count, generator=drawn) for size in (TRIES, TRIES, 2))
    whole = 0
    for i in range(count):
        tall = wide = 1.0
        for area, form in zip(areas[:, i].tolist(), forms[:, i].tolist(), strict=True):
            pixels = (1 - 0.9 * strength * area) * height * width
            ratio = 0.75 ** (2 * form - 1)
            if (pixels * ratio) ** 0.5 <= width and (pixels / ratio) ** 0.5 <= height:
                tall, wide = (pixels / ratio) ** 0.5 / height, (pixels * ratio) ** 0.5 / width
                break
        else:
            whole += 1
        top, left = corners[0, i].item() * (1 - tall), corners[1, i].item() * (1 - wide)
        assert boxes[:, i].tolist() == pytest.approx([top, left, tall, wide], abs=1e-5)
    assert (whole > 0) == (strength == 0.1)


def test_boxes_have_their_areas_and_forms() -> None:
    top, left, tall, wide = draw_boxes(5000, 40, 20, 1.0, generator())
    assert float(torch.stack([top, left]).min()) >= 0
    assert float(torch.stack([top + tall, left + wide]).max()) <= 1 + 1e-6
    area, form = tall * wide, 20 * wide / (40 * tall)
    form = form[(tall < 1) | (wide < 1)]  # the others are images that no box fits
    assert 0.1 <= float(area.min()) < 0.11
    assert 3 / 4 - 1e-5 <= float(form.min()) < 0.76
    assert 1.3 < float(form.max()) <= 4 / 3 + 1e-5


def test_the_crop_is_that_of_grid_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    x = colours(6, 9)[..., :7].contiguous()
    top, left, tall, wide = boxes = torch.tensor(
        [
            [0.0, 0.0, 1.0, 1.0],
            [0.1, 0.3, 0.6, 0.7],
            [0.5, 0.0, 0.5, 1.0],
            [0.2, 0.2, 0.3, 0.4],
            [0.0, 0.6, 0.9, 0.4],
            [0.3, 0.1, 0.7, 0.5],
        ]
    ).T
    monkeypatch.setattr(_augment, "draw_boxes", lambda *args: boxes)
    monkeypatch.setattr(_augment, "_change_colours", lambda x, jitter, order: x)
    monkeypatch.setattr(_augment, "_luma", lambda x: x)
    zero = torch.zeros(6)
    theta = torch.stack(
        [
            torch.stack([wide, zero, 2 * left + wide - 1], 1),
            torch.stack([zero, tall, 2 * top + tall - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    plain = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    assert torch.allclose(augment(x, 0.5, generator(), flip=False), plain, atol=1e-5)
    mixed = augment(x, 0.5, generator())
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(mixed, plain, strict=True)]
    assert [torch.allclose(a, b, atol=1e-5) for a, b in zip(mixed, plain, strict=True)] == [
        not there for there in mirrored
    ]
    assert 0 < sum(mirrored) < 6


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_colours_change_as_torchvision_changes_them(order: list[int]) -> None:
    x = colours(4)
    jitter = 2 * torch.rand(4, 4, 1, 1, 1, generator=generator()) - 1
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    expected = []
    for i, image in enumerate(x):
        for number in order:
            amount = jitter[number, i].item()
            image = getattr(published, names[number])(
                image, 0.1 * amount if number == 3 else 1 + 0.4 * amount
            )
        expected.append(image)
    assert torch.allclose(
        _augment._change_colours(x, jitter, order), torch.stack(expected), atol=1e-3
    )  # its luminance has four digits


def test_hue_turns_red_into_green_and_comes_round() -> None:
    x = torch.tensor([0.9, 0.2, 0.2]).view(1, 3, 1, 1)
    assert turn_hue(x, torch.full((1, 1, 1, 1), 1 / 3)).flatten().tolist() == pytest.approx(
        [0.2, 0.9, 0.2], abs=1e-6
    )
    assert turn_hue(x, torch.full((1, 1, 1, 1), -1 / 3)).flatten().tolist() == pytest.approx(
        [0.2, 0.2, 0.9], abs=1e-6
    )
    many = colours(3)
    assert torch.allclose(turn_hue(many, torch.ones(3, 1, 1, 1)), many, atol=1e-5)


def test_odds_are_those_of_the_strength() -> None:
    """Images of one colour, which neither box nor mirror changes."""
    x = torch.rand(4000, 3, 1, 1, generator=generator(1)).expand(4000, 3, 4, 4)
    view = augment(x, 0.5, generator())
    same = torch.isclose(view, x, atol=1e-6).flatten(1).all(1)
    gray = (view.amax(1) - view.amin(1)).flatten(1).amax(1) < 1e-6
    assert float(gray.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(same.float().mean()) == pytest.approx(0.6 * 0.9, abs=0.03)


@pytest.mark.parametrize(("flip", "share"), [(True, 0.5), (False, 0.0)])
def test_mirrored_is_every_other_image_or_none(flip: bool, share: float) -> None:
    x = torch.zeros(1000, 3, 8, 8)
    x[..., 4:] = 1
    view = augment(x, 0.1, generator(), flip)
    mirrored = view[..., :3].mean((1, 2, 3)) > view[..., 5:].mean((1, 2, 3))
    assert float(mirrored.float().mean()) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_stay_in_range_and_image_by_image(channels: int) -> None:
    x = colours(40, 8, channels)
    view = augment(x, 1.0, generator())
    assert view.shape == x.shape
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(view.min()) < float(view.max()) <= 1
    other = x.clone()
    other[3] = 0.5
    changed = (augment(other, 1.0, generator()) != view).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [3]
    assert not torch.equal(augment(x, 1.0, generator(1)), view)


def test_bf16_does_not_round_images() -> None:
    x = colours(8)
    with Context(precision="bf16").autocast():
        view = augment(x, 1.0, generator())
    assert torch.equal(view, augment(x, 1.0, generator()))


def test_the_gradient_is_that_of_the_function() -> None:
    x = (0.2 + 0.6 * colours(4, 3)).double().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda images: augment(images, 1.0, generator(3)), x, eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_images_without_colour_have_a_gradient(value: float) -> None:
    x = torch.full((50, 3, 4, 4), value, requires_grad=True)
    (gradient,) = torch.autograd.grad(augment(x, 1.0, generator()).sum(), x)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().sum()) > 0


def test_what_is_just_in_range_can_still_change() -> None:
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1], requires_grad=True)
    (gradient,) = torch.autograd.grad(clip(x).sum(), x)
    assert clip(x).tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert gradient.tolist() == [0, 1, 1, 1, 0]


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="images have 2 channels, expected 1"):
        augment(colours(1, 8, 2), 0.5, generator())
