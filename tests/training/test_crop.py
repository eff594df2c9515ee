"""Crops as one gather, against slices of single images."""

from __future__ import annotations

import torch

from benchmark.training.crop import cropped


def test_windows_are_slices_and_mirrored_where_asked() -> None:
    padded = torch.arange(2 * 5 * 6 * 3).view(2, 5, 6, 3)
    image, top, left = torch.tensor([1, 0, 1]), torch.tensor([0, 2, 1]), torch.tensor([3, 0, 2])
    plain = cropped(padded, image, top, left, 3, 3)
    mirrored = cropped(padded, image, top, left, 3, 3, torch.tensor([0, 1, 0]))
    for k in range(3):
        window = padded[image[k], top[k] : top[k] + 3, left[k] : left[k] + 3]
        assert torch.equal(plain[k], window)
        assert torch.equal(mirrored[k], window.flip(1) if k == 1 else window)


def test_gradients_of_overlapping_windows_add_up() -> None:
    padded = torch.zeros(1, 3, 3, 1, requires_grad=True)
    image, top, left = torch.zeros(2, dtype=torch.int64), torch.tensor([0, 1]), torch.tensor([0, 1])
    cropped(padded, image, top, left, 2, 2).sum().backward()
    assert padded.grad is not None
    assert padded.grad.flatten().tolist() == [1, 1, 0, 1, 2, 1, 0, 1, 1]
