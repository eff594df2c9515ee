"""Every registered attack and defense keeps the promises of its kind.

A new method is tested here without further code.
"""

from __future__ import annotations

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.contract import check_method

NEED_A_FILE = {"file"}  # tests/attacks/test_file_planned.py gives it a file
METHODS = [(kind, name) for kind in ("attack", "defense") for name in Registry().cards(kind)]


@pytest.mark.contract
@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_method_keeps_its_contract(kind: str, name: str, registry: Registry) -> None:
    results = check_method(kind, name, registry)
    assert not [f"{result.name}: {result.detail}" for result in results if not result.passed]
    assert results[-1].name == ("documentation" if name in NEED_A_FILE else "seed")


def test_no_method_file_is_broken(registry: Registry) -> None:
    for kind in ("attack", "defense", "dataset", "victim"):
        assert registry.cards(kind)
    assert registry.broken == []
