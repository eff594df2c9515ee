"""What is particular to CUDA: one kernel a class for all channels, images at full brightness."""

from __future__ import annotations

import pytest
import torch

from attacks.cuda import CUDA, filtered
from benchmark import Context, ImageSet
from benchmark.data import to_float, to_uint8
from benchmark.running.verify import verify_poison
from support.sets import random_set


def test_kernels_have_one_entry_of_one(toy10: ImageSet, ctx: Context) -> None:
    kernels = CUDA().kernels(toy10.info, ctx)
    assert kernels.shape == (10, 3, 3)
    assert (kernels == 1).flatten(1).sum(1).tolist() == [1] * 10
    assert float(kernels[kernels != 1].max()) < 0.3
    assert float(kernels.min()) >= 0
    assert len({tuple(kernel.flatten().tolist()) for kernel in kernels}) == 10


def test_filtering_is_a_sum_over_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    x, kernels = (
        torch.rand(2, 3, 5, 6, generator=generator),
        torch.rand(2, 3, 3, generator=generator),
    )
    out = filtered(x, kernels)
    padded = torch.zeros(2, 3, 7, 8)
    padded[:, :, 1:-1, 1:-1] = x
    for image in range(2):
        sums = sum(
            kernels[image, a, b] * padded[image, :, a : a + 5, b : b + 6]
            for a in range(3)
            for b in range(3)
        )
        assert isinstance(sums, torch.Tensor)
        assert torch.allclose(out[image], sums / sums.max(), atol=1e-6)


def test_the_identity_only_stretches(toy10: ImageSet) -> None:
    x = to_float(toy10.x)
    identity = torch.zeros(len(x), 3, 3)
    identity[:, 1, 1] = 1
    assert torch.allclose(filtered(x, identity), x / x.flatten(1).amax(1)[:, None, None, None])


def test_poison_is_the_filtered_image_and_reaches_white(ctx: Context) -> None:
    data = random_set(40, 4)
    data.x[3] = 0
    poisoned = CUDA().poison(data, ctx)
    kernels = CUDA().kernels(data.info, ctx)
    assert torch.equal(poisoned.x, to_uint8(filtered(to_float(data.x), kernels[data.y])))
    assert poisoned.x.flatten(1).amax(1).tolist() == [0 if i == 3 else 255 for i in range(40)]
    assert verify_poison(data, poisoned, CUDA())["changed"] == pytest.approx(39 / 40)


def test_larger_kernels_keep_the_size(ctx: Context) -> None:
    data = random_set(6, 2, 3, 24, 20)
    assert CUDA(size=9, blur=0.06).poison(data, ctx).x.shape == data.x.shape


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 4}, "size=4, expected an odd number"),
        ({"size": 1}, "size=1, expected at least 3"),
        ({"blur": 1.5}, r"blur=1\.5, expected 0 < blur < 1"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CUDA(**values)  # type: ignore[arg-type]
