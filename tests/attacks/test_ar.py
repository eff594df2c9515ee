"""What is particular to AR: the linear map is the process, each class answers to its own filter, lengths are exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks import ar
from attacks.ar import AR, LONGEST, MARGIN, TILE, response, run, signal_map
from benchmark import Context, ImageSet
from benchmark.data import DatasetInfo
from benchmark.running.verify import verify_poison
from support.sets import random_set


def info(classes: int = 10, side: int = 32) -> DatasetInfo:
    return DatasetInfo("gray", classes, tuple(map(str, range(classes))), 3, side, side, hflip=True)


def gray(n: int, classes: int, side: int = 32) -> ImageSet:
    """Mid-gray images, which no small change clips."""
    data = random_set(n, classes, 3, side, side)
    return data.with_x(torch.full_like(data.x, 128))


def pixel_after_pixel(kernel: Tensor, start: Tensor) -> Tensor:
    """The published loop, for one channel: float64 (3, 3) and (H, W)."""
    x = start.clone()
    for i in range(x.shape[0] - 2):
        for j in range(x.shape[1] - 2):
            x[i + 2, j + 2] = (kernel * x[i : i + 3, j : j + 3]).sum() - kernel[2, 2] * x[
                i + 2, j + 2
            ]
    return x[MARGIN:, MARGIN:]


@pytest.fixture(scope="module")
def kernels() -> Tensor:
    return AR().kernels(info(), Context(seed_axes=("ar", 0)))


def test_diagonals_and_matrix_equal_the_loop(kernels: Tensor) -> None:
    start = torch.randn(
        3,
        TILE + MARGIN,
        TILE + MARGIN,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    wanted = torch.stack(
        [
            pixel_after_pixel(kernel, channel)
            for kernel, channel in zip(kernels[4], start, strict=True)
        ]
    )
    assert torch.allclose(run(kernels[4], start.clone()), wanted, rtol=1e-9, atol=1e-9)
    free = torch.ones(TILE + MARGIN, TILE + MARGIN, dtype=torch.bool)
    free[2:, 2:] = False
    assert free.sum() == 140
    by_matrix = torch.einsum("cf,cfp->cp", start[:, free], signal_map(kernels[4], TILE))
    assert torch.allclose(by_matrix, wanted.flatten(1), rtol=1e-9, atol=1e-9)


def test_rectangles_too_equal_the_loop(kernels: Tensor) -> None:
    start = torch.randn(1, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        run(kernels[0, :1], start.clone())[0], pixel_after_pixel(kernels[0, 0], start[0])
    )


def test_kernels_sum_to_one_and_stay_short(kernels: Tensor) -> None:
    assert kernels.shape == (10, 3, 3, 3)
    assert kernels.sum((-2, -1)).flatten().tolist() == pytest.approx([1.0] * 30)
    assert not kernels[..., 2, 2].any()
    assert all(float(signal_map(kernel, TILE).norm()) <= LONGEST for kernel in kernels)


def test_each_class_is_known_by_its_own_filter(kernels: Tensor) -> None:
    attack, generator = AR(), torch.Generator().manual_seed(0)
    for label, kernel in enumerate(kernels):
        noise = attack.noise(info(), signal_map(kernel, TILE), 8, generator).double()
        answers = torch.stack([response(noise, other) for other in kernels])
        assert torch.equal(answers.argmin(0), torch.full((8,), label))
        assert float(answers[label].max()) < 1e-4


@pytest.mark.parametrize(("side", "length"), [(32, 1.0), (96, 3.0), (40, 1.25)])
def test_length_is_that_of_the_budget(side: int, length: float, kernels: Tensor) -> None:
    noise = AR().noise(
        info(side=side), signal_map(kernels[0], TILE), 6, torch.Generator().manual_seed(0)
    )
    assert noise.shape == (6, 3, side, side)
    assert noise.flatten(1).norm(dim=1).tolist() == pytest.approx([length] * 6, rel=1e-4)
    assert AR().budget(info(side=side)) == pytest.approx(length)


def test_tiles_are_draws_of_their_own(kernels: Tensor) -> None:
    noise = AR().noise(
        info(side=64), signal_map(kernels[0], TILE), 2, torch.Generator().manual_seed(0)
    )
    tiles = [noise[0, :, i : i + 32, j : j + 32].double() for i in (0, 32) for j in (0, 32)]
    assert all(float(response(tile[None], kernels[0])) < 1e-4 for tile in tiles)
    assert not any(torch.allclose(tiles[0], tile) for tile in tiles[1:])


def test_budget_holds_after_rounding(toy10: ImageSet) -> None:
    for attack, data in (
        (AR(), toy10),
        (AR(), gray(8, 2, 48)),
        (AR(eps=0.5), gray(1000, 10)),
        (AR(), gray(2000, 10, 8)),
    ):
        assert verify_poison(data, attack.poison(data, Context()), attack)["changed"] == 1.0


def test_half_the_shortest_budget_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"eps=0\.25, expected 0\.5 <= eps <= 4 \(L2 budget of an image of 3x32x32",
    ):
        AR(eps=0.25)
    for eps in (8.0, 255.0):
        with pytest.raises(ValueError, match=f"eps={eps:g}, expected 0.5 <= eps <= 4 .*3x32x32"):
            AR(eps=eps)


def test_processes_that_cannot_be_told_apart_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ar, "TRIES", 1024)
    with pytest.raises(
        ValueError,
        match=r"found \d+ of 50 processes whose responses differ by 100 among 1024 tries; lower response",
    ):
        AR(response=100.0).kernels(info(50), Context())


def test_many_classes_have_processes() -> None:
    assert len(AR().kernels(info(100), Context())) == 100
