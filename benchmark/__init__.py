"""uebench: how well do defenses restore learning on unlearnable examples?

The package holds the functions that Python users call (``run``, ``load``, ``leaderboard``,
``compare``, ``poison``, ``purify``; see docs/python.md) and the names that authors of methods need.
All names load on first use, so that importing the package is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.api import Attack as Attack
    from benchmark.api import Context as Context
    from benchmark.api import Dataset as Dataset
    from benchmark.api import Defense as Defense
    from benchmark.api import attack as attack
    from benchmark.api import dataset as dataset
    from benchmark.api import defense as defense
    from benchmark.data import DatasetInfo as DatasetInfo
    from benchmark.data import ImageSet as ImageSet
    from benchmark.data import Splits as Splits
    from benchmark.storage.files import given_file as given_file
    from benchmark.training.checkpoint import Checkpoint as Checkpoint
    from benchmark.training.gradients import frozen as frozen
    from benchmark.training.gradients import input_gradient as input_gradient
    from benchmark.training.surrogate import surrogates as surrogates
    from benchmark.training.train import build_victim as build_victim
    from benchmark.workspace.functions import Run as Run
    from benchmark.workspace.functions import compare as compare
    from benchmark.workspace.functions import leaderboard as leaderboard
    from benchmark.workspace.functions import load as load
    from benchmark.workspace.functions import poison as poison
    from benchmark.workspace.functions import purify as purify
    from benchmark.workspace.functions import run as run

__version__ = "0.1.0"

_NAMES = {  # module -> the names that this package takes from it
    "benchmark.api": "Attack Context Dataset Defense attack dataset defense",
    "benchmark.data": "DatasetInfo ImageSet Splits",
    "benchmark.storage.files": "given_file",
    "benchmark.training.checkpoint": "Checkpoint",
    "benchmark.training.gradients": "frozen input_gradient",
    "benchmark.training.surrogate": "surrogates",
    "benchmark.training.train": "build_victim",
    "benchmark.workspace.functions": "Run compare leaderboard load poison purify run",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [  # literal, so that type checkers see what uebench re-exports
    "Attack",
    "Checkpoint",
    "Context",
    "Dataset",
    "DatasetInfo",
    "Defense",
    "ImageSet",
    "Run",
    "Splits",
    "attack",
    "build_victim",
    "compare",
    "dataset",
    "defense",
    "frozen",
    "given_file",
    "input_gradient",
    "leaderboard",
    "load",
    "poison",
    "purify",
    "run",
    "surrogates",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
