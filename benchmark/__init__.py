"""uebench: how well do defenses restore learning on unlearnable examples?

The names a plugin author needs are here. They load on first use, so that importing this package is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.api import Attack, Context, Dataset, Defense, attack, dataset, defense
    from benchmark.data import DatasetInfo, ImageSet, Splits

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("Attack", "Context", "Dataset", "Defense", "attack", "dataset", "defense"), "benchmark.api"),
    **dict.fromkeys(("DatasetInfo", "ImageSet", "Splits"), "benchmark.data"),
}
__all__ = ["Attack", "Context", "Dataset", "DatasetInfo", "Defense", "ImageSet", "Splits", "attack", "dataset", "defense"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
