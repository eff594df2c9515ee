"""OPS in closed form against the loop that its definition describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks import ops
from attacks.ops import OPS
from benchmark import Context, ImageSet
from benchmark.running.verify import verify_poison
from support.sets import random_set

CRITERIA = ("pooled", "summed", "diff")


def naive_scores(images: np.ndarray, criterion: str) -> np.ndarray:
    """Scores (H * W, 2**C) of images (n, C, H, W) in [0, 1], one position and colour at a time."""
    _, channels, height, width = images.shape
    scores = np.zeros((height * width, 2**channels))
    for row in range(height):
        for column in range(width):
            for index in range(2**channels):
                colour = [int(bit) for bit in format(index, f"0{channels}b")]
                distance = np.abs(np.array(colour) - images[:, :, row, column])  # (n, C)
                if criterion == "summed":
                    distance = distance.sum(1)
                spread = distance.std() if criterion == "pooled" else distance.var()
                score = (
                    distance.mean() - spread
                    if criterion == "diff"
                    else distance.mean() / (spread + 1e-12)
                )
                scores[row * width + column, index] = score
    return scores


def naive_poison(data: ImageSet, criterion: str) -> np.ndarray:
    x, y = data.x.numpy().copy(), data.y.numpy()
    used: set[tuple[int, int]] = set()
    for label in range(data.info.num_classes):
        scores = naive_scores(data.x.numpy()[y == label] / 255, criterion)
        for pair in used:
            scores[pair] = -np.inf
        position, index = np.unravel_index(scores.argmax(), scores.shape)
        used.add((int(position), int(index)))
        colour = [255 * int(bit) for bit in format(index, f"0{data.info.channels}b")]
        x[y == label, :, position // data.info.width, position % data.info.width] = colour
    return x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_closed_form_equals_the_loop(criterion: str, channels: int, ctx: Context) -> None:
    data = random_set(64, 4, channels, height=5, width=7)
    for label in range(4):
        members = (data.y == label).nonzero().flatten()
        expected = naive_scores(data.x[members].numpy() / 255, criterion)
        assert np.allclose(
            OPS(criterion=criterion).scores(data, members), expected, rtol=1e-10, atol=1e-12
        )
    assert np.array_equal(
        OPS(criterion=criterion).poison(data, ctx).x, naive_poison(data, criterion)
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_do_not_depend_on_the_chunks(
    criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_set(50, 2)
    whole = OPS(criterion=criterion).scores(data, torch.arange(50))
    monkeypatch.setattr(ops, "EXACT", 7)
    assert torch.equal(OPS(criterion=criterion).scores(data, torch.arange(50)), whole)


def test_sums_stay_exact_at_the_largest_values() -> None:
    data = random_set(600, 2, height=2, width=2)
    data = data.with_x(torch.full_like(data.x, 255))
    first, second = ops.moments(data, torch.arange(600))
    assert first.unique().tolist() == [600 * 255]
    assert second.unique().tolist() == [600 * 255**2]


def test_one_position_a_class_and_different_pairs(ctx: Context) -> None:
    data = random_set(400, 40, height=6, width=4)  # more classes than positions
    poisoned = OPS().poison(data, ctx)
    pairs = set()
    for label in range(40):
        before, after = data.x[data.y == label], poisoned.x[data.y == label]
        touched = (before != after).any(1).any(0).nonzero()
        assert len(touched) == 1
        row, column = touched[0].tolist()
        assert after[:, :, row, column].unique(dim=0).shape[0] == 1
        assert set(after[0, :, row, column].tolist()) <= {0, 255}
        pairs.add((row, column, *after[0, :, row, column].tolist()))
    assert len(pairs) == 40
    assert verify_poison(data, poisoned, OPS())["l0_max"] == 1


def test_several_pixels_lie_at_several_positions(ctx: Context) -> None:
    data = random_set(120, 3)
    data = data.with_x(
        torch.randint(
            100, 120, data.x.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
    )
    # position (2, 5) is so even that two of its colours have the best two scores
    data.x[:, :, 2, 5] = torch.tensor([90, 100, 110], dtype=torch.uint8)
    poisoned = OPS(pixels=3).poison(data, ctx)
    changed = (data.x != poisoned.x).any(1).sum((1, 2))
    assert changed.unique().tolist() == [3]
    assert verify_poison(data, poisoned, OPS(pixels=3))["l0_max"] == 3


def test_first_index_wins_a_tie(ctx: Context) -> None:
    data = random_set(20, 2, channels=1, height=3, width=3)
    data = data.with_x(
        torch.full_like(data.x, 128)
    )  # every position is alike; black lies farther than white
    poisoned = OPS().poison(data, ctx).x
    assert poisoned[data.y == 0][:, 0, 0, 0].unique().tolist() == [0]
    assert poisoned[data.y == 1][:, 0, 0, 1].unique().tolist() == [0]


def test_taken_pairs_are_left_out_even_if_all_scores_are_negative(ctx: Context) -> None:
    data = random_set(40, 2, channels=1, height=1, width=1)
    x = torch.zeros_like(data.x)
    x[::2] = 255  # mean 1/2 and variance 1/4 for both colours
    poisoned = OPS(criterion="diff").poison(data.with_x(x), ctx).x
    assert poisoned[data.y == 0].unique().tolist() == [0]
    assert poisoned[data.y == 1].unique().tolist() == [255]


def test_absent_class_takes_nothing(ctx: Context) -> None:
    data = random_set(20, 2)
    only = ImageSet(data.x, torch.ones(20, dtype=torch.int64), data.info)
    assert verify_poison(only, OPS().poison(only, ctx), OPS())["l0_max"] == 1


def test_errors_say_what_is_expected(ctx: Context) -> None:
    with pytest.raises(ValueError, match="expected pooled, summed or diff"):
        OPS(criterion="mean")
    with pytest.raises(ValueError, match="pixels=0, expected at least 1"):
        OPS(pixels=0)
    with pytest.raises(ValueError, match="pixels=5, but images have 4"):
        OPS(pixels=5).poison(random_set(10, 2, height=2, width=2), ctx)
    with pytest.raises(
        ValueError, match="3 classes want 3 pixels, but images have 2 pairs of place and colour"
    ):
        OPS().poison(random_set(12, 3, channels=1, height=1, width=1), ctx)
    with pytest.raises(
        ValueError, match="no free pixel is left for class 2"
    ):  # of two pixels of one image none lies on the other
        OPS(pixels=2).poison(random_set(8, 3, channels=1, height=1, width=3), ctx)
