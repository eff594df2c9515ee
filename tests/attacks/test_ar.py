"""What is particular to AR: its kernels follow the released rule, and a class has one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks import _ar_kernels
from attacks._ar_kernels import (
    LONGEST,
    MARGIN,
    SIDE,
    TILE,
    draw,
    responses,
    run,
    search,
    shipped,
    signal_map,
)
from attacks.ar import AR
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


def test_shipped_kernels_sum_to_one() -> None:
    found = shipped()
    assert found.kernels.shape == (100, 3, 3, 3)
    assert torch.allclose(found.kernels.sum((-2, -1)), torch.ones(100, 3, dtype=torch.float64))
    assert not found.kernels[..., 2, 2].any()
    assert len(found.candidates) == 100
    assert list(found.candidates) == sorted(set(found.candidates))


def test_shipped_kernels_are_those_of_the_search() -> None:
    """The first five take 2,679 tries; ``perf/ar_kernels.py`` makes the whole file."""
    found, wanted = search(5), shipped()
    assert found.candidates == wanted.candidates[:5]
    assert torch.allclose(found.kernels, wanted.kernels[:5], rtol=1e-12, atol=0)  # libm may differ


def test_search_equals_the_loop_over_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One candidate after another, trials in full, each filter by itself; ``least`` is low."""
    ctx, wanted = Context(seed_axes=("ar kernels", 6)), 4.0
    stream, numbers, kept = ctx.generator("candidates"), list[int](), list[Tensor]()
    for number in range(1000):
        kernels, cells = draw(1, 3, stream)
        others = torch.randn(
            2,
            3,
            140,
            dtype=torch.float64,
            generator=ctx.generator(f"other trials of {number}"),
        )
        trials = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.float64)
        trials[..., :2, :] = 1
        trials[..., :2] = 1
        trials[trials == 1] = torch.cat([others, cells]).flatten()
        signals = run(kernels[0], trials)
        lengths = torch.stack([signal.square().sum().sqrt() for signal in signals])
        if not (lengths <= LONGEST).all():
            continue
        last = signals[2] / lengths[2]
        if all(released_response(last, kernel) >= wanted for kernel in kept):
            numbers.append(number)
            kept.append(kernels[0])
            if len(kept) == 5:
                break
    for at_once in (64, 1024):
        monkeypatch.setattr(_ar_kernels, "CANDIDATES", at_once)
        found = search(5, seed=6, least=wanted)
        assert found.candidates == tuple(numbers)
        assert torch.equal(found.kernels, torch.stack(kept))


def released_response(signal: Tensor, kernel: Tensor) -> float:
    """Windows times filter, summed over channels and cells; the positive sums together."""
    windows = signal.unfold(1, 3, 1).unfold(2, 3, 1)  # (C, rows, columns, 3, 3)
    filters = kernel.clone()
    filters[:, 2, 2] = -1
    answers = (windows * filters[:, None, None]).sum((0, 3, 4))
    return float(answers[answers > 0].sum())


def test_response_sums_channels_before_the_positive_part() -> None:
    """Worked out by hand; a positive part in each channel would give 8."""
    signal = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    signal[0, 0, 2, 2], signal[0, 1, 0, 0], signal[0, 1, 0, 1] = 2, 3, 5
    kernels = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    kernels[0, 1, 0, 0] = 1
    # Window 0: -2 + 3; window 1: 5, and the cell of channel 0 meets a zero.
    assert responses(signal, kernels).tolist() == [[6.0]]


def test_ten_and_a_hundred_classes_share_their_first_kernels(kernels: Tensor) -> None:
    assert torch.equal(kernels, AR().kernels(info(100), Context(seed_axes=("else", 1)))[:10])


def test_shipped_kernels_differ_as_released_ones() -> None:
    """The ten released kernels have a median of 11.5."""
    generator, pairs = torch.Generator().manual_seed(0), []
    ten = shipped().kernels[:10]
    for label, kernel in enumerate(ten):
        cells = torch.randn(16, 3, 140, dtype=torch.float64, generator=generator)
        signals = torch.einsum("ncf,cfp->ncp", cells, signal_map(kernel, TILE)).view(16, 3, 32, 32)
        signals /= signals.flatten(1).norm(dim=1)[:, None, None, None]
        pairs.append(responses(signals, torch.cat([ten[:label], ten[label + 1 :]])))
    assert 11.0 < float(torch.cat(pairs).median()) < 12.0


def test_other_seeds_responses_and_channels_are_searched_for() -> None:
    messages: list[tuple[float, str]] = []
    ctx = Context(on_progress=lambda done, note: messages.append((done, note)))
    other = AR(kernels_seed=3).kernels(info(2), ctx)
    assert torch.equal(other, search(2, seed=3).kernels)
    assert not torch.allclose(other, shipped().kernels[:2])
    assert messages[0] == (0.0, "0 of 2 processes found, 0 tried")
    gray_info = DatasetInfo("gray", 3, ("0", "1", "2"), 1, 32, 32, hflip=True)
    assert AR(response=4.0).kernels(gray_info, ctx).shape == (3, 1, 3, 3)


def test_each_class_is_known_by_its_own_filter(kernels: Tensor) -> None:
    attack, generator = AR(), torch.Generator().manual_seed(0)
    for label, kernel in enumerate(kernels):
        noise = attack.noise(info(), signal_map(kernel, TILE), 8, generator).double()
        answers = responses(noise, kernels)
        assert torch.equal(answers.argmin(1), torch.full((8,), label))
        assert float(answers[:, label].max()) < 1e-4


@pytest.mark.parametrize(("side", "length"), [(32, 1.0), (96, 3.0), (40, 1.25), (224, 7.0)])
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
    assert all(float(responses(tile[None], kernels[:1])) < 1e-4 for tile in tiles)
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


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels_seed=-1, expected at least 0"):
        AR(kernels_seed=-1)


def test_processes_that_cannot_be_told_apart_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ar_kernels, "TRIES", 1024)
    with pytest.raises(
        ValueError,
        match=r"found \d+ of 50 processes whose responses differ by 100 among 1024 tries; lower",
    ):
        AR(response=100.0).kernels(info(50), Context())
