"""Image operations and their defenses against Pillow, torchvision, loops and known values."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import parse_spec
from benchmark.data import to_float
from benchmark.training.images import blur, grayscale, jpeg, on_floats, reduce_bits
from support.sets import random_set


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def test_grayscale_is_pillows_byte_for_byte() -> None:
    x = random_set(40, 4, height=9, width=31).x
    out = grayscale(x)
    for image, gray in zip(x, out, strict=True):
        expected = np.asarray(as_pillow(image).convert("L"))
        for channel in gray:
            assert np.array_equal(channel.numpy(), expected)


def test_grayscale_leaves_one_channel_images_and_refuses_two() -> None:
    one = random_set(4, 2, channels=1).x
    assert torch.equal(grayscale(one), one)
    with pytest.raises(ValueError, match="2 channels, expected 1"):
        grayscale(random_set(4, 2, channels=2).x)


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows_decode_at_420(toy10: ImageSet, quality: int) -> None:
    out = jpeg(toy10.x[:12], quality)
    for image, coded in zip(toy10.x, out, strict=False):
        buffer = io.BytesIO()
        as_pillow(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        assert np.array_equal(coded.permute(1, 2, 0).numpy(), np.asarray(Image.open(buffer)))


def test_jpeg_does_not_depend_on_threads_and_keeps_its_argument(toy10: ImageSet) -> None:
    before = toy10.x.clone()
    assert torch.equal(jpeg(toy10.x, workers=1), jpeg(toy10.x, workers=3))
    assert torch.equal(toy10.x, before)
    assert len(jpeg(toy10.x[:0])) == 0


def test_jpeg_of_high_quality_changes_little_and_low_changes_more(toy10: ImageSet) -> None:
    x = grayscale(toy10.x)  # colour would be subsampled even at 100
    fine, coarse = (
        float((x.float() - jpeg(x, quality).float()).square().mean()) for quality in (100, 10)
    )
    assert fine < 2
    assert coarse > 65  # a peak signal-to-noise ratio of 30 dB


def test_jpeg_of_gray_images_that_are_not_square() -> None:
    x = random_set(3, 2, channels=1, height=8, width=24).x
    buffer = io.BytesIO()
    Image.fromarray(x[1, 0].numpy()).save(buffer, "JPEG", quality=30)
    assert np.array_equal(jpeg(x, 30)[1, 0].numpy(), np.asarray(Image.open(buffer)))


def test_two_bits_leave_four_levels() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(reduce_bits(x, 2), x & 0xC0)
    assert reduce_bits(x, 2).unique().tolist() == [0, 64, 128, 192]
    assert reduce_bits(x, 1).unique().tolist() == [0, 128]
    assert torch.equal(reduce_bits(x, 8), x)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_torchvisions(sigma: float) -> None:
    x = random_set(10, 2, height=12, width=7).x
    assert torch.equal(blur(x, sigma), gaussian_blur(x, [3, 3], [sigma, sigma]))


def test_blur_of_a_tenth_of_a_pixel_does_nothing() -> None:
    x = random_set(10, 2).x
    assert torch.equal(blur(x, 0.1), x)
    assert not torch.equal(blur(x, 1.0), x)


def test_bad_arguments_say_what_is_expected() -> None:
    x = random_set(2, 2, height=6).x
    with pytest.raises(ValueError, match=r"quality 0, expected 1\.\.100"):
        jpeg(x, 0)
    with pytest.raises(ValueError, match=r"9 bits, expected 1\.\.8"):
        reduce_bits(x, 9)
    with pytest.raises(ValueError, match="expected a positive number"):
        blur(x, 0.0)
    with pytest.raises(TypeError, match="for floats use on_floats"):
        grayscale(to_float(x))


OPERATIONS = {
    "grayscale": grayscale,
    "jpeg": jpeg,
    "bdr": lambda x: reduce_bits(x, 2),
    "blur": lambda x: blur(x, 1.0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_defense_transforms_training_images_and_test_images_on_request(
    name: str, toy10: ImageSet, registry: Registry, ctx: Context
) -> None:
    expected = OPERATIONS[name](toy10.x)
    plain, both = (
        registry.build("defense", registry.resolve("defense", parse_spec(text)))
        for text in (name, f"{name}[test=true]")
    )
    assert torch.equal(plain.purify(toy10, ctx).x, expected)
    images = to_float(toy10.x)
    assert torch.equal(plain.at_test(images), images)
    assert torch.equal(both.at_test(images), to_float(expected))


def test_on_floats_rounds_to_nearest() -> None:
    x = torch.tensor([0.4, 0.6, 300.0, -2.0]).view(1, 1, 2, 2) / 255
    assert (on_floats(x, lambda image: image) * 255).flatten().round().tolist() == [0, 1, 255, 0]


@pytest.mark.parametrize("text", ["jpeg[quality=0]", "bdr[bits=9]", "blur[sigma=0]"])
def test_defense_refuses_parameters_out_of_range(text: str, registry: Registry) -> None:
    spec = parse_spec(text)
    with pytest.raises(ValueError, match=f'defense "{spec.name}": .*expected'):
        registry.resolve("defense", spec)
