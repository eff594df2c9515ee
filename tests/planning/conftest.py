"""Fixtures of the planner's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.catalogue.registry import Registry
from support.small_plans import small_methods


@pytest.fixture
def methods(tmp_path: Path) -> Registry:
    """The project's methods and four small ones, which the tests read but never run."""
    return small_methods(tmp_path)
