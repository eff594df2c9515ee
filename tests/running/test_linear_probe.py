"""The linear probe tells class-coded changes from noise, on images that it has not seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks.lsp import LSP
from benchmark import Context
from benchmark.running.linear_probe import NUMBERS, linear_probe
from benchmark.running.verify import verify_poison
from support.sets import random_set


def told(change: Tensor, classes: int) -> float | None:
    """The probe on mid-gray images of alternating classes with this change."""
    gray = torch.full(change.shape, 128)
    return linear_probe(
        gray.byte(), (gray + change).byte(), torch.arange(len(change)) % classes, classes
    )


def test_a_pattern_a_class_is_told_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(-8, 9, (4, 3, 8, 8), generator=generator)
    noise = torch.randint(-8, 9, (400, 3, 8, 8), generator=generator)
    assert told(patterns.repeat(100, 1, 1, 1) + noise, 4) == 1.0
    assert told(noise, 4) == pytest.approx(
        0.25, abs=0.1
    )  # though 200 images of 192 numbers can be fitted to any labels


def test_sorted_classes_are_in_both_halves() -> None:
    y = torch.arange(2).repeat_interleave(20)
    x = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
    assert linear_probe(x, x + y[:, None, None, None].byte(), y, 2) == 1.0


def test_where_there_is_nothing_to_tell() -> None:
    assert told(torch.zeros(40, 3, 8, 8), 4) is None
    assert told(torch.ones(8, 3, 8, 8), 4) is None
    assert told(torch.ones(40, 1, 1, NUMBERS + 1), 4) is None


def test_facts_of_a_poison_hold_it() -> None:
    data = random_set(200, 4, 3, 16, 16)
    facts = verify_poison(data, LSP(patch=4).poison(data, Context()), LSP(patch=4))
    assert facts["probe"] is not None
    assert facts["probe"] > 0.9
