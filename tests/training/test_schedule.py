"""The cosine schedule against its values at known points."""

from __future__ import annotations

import math

import pytest

from benchmark.training.schedule import cosine


def test_a_cosine_falls_from_the_start_to_zero() -> None:
    rates = [cosine(0.2, done, 4) for done in range(5)]
    root = math.sqrt(0.5)
    assert rates == pytest.approx([0.2, 0.1 + 0.1 * root, 0.1, 0.1 - 0.1 * root, 0], abs=1e-15)
    assert cosine(0.2, 0.25) == cosine(0.2, 1, 4)
