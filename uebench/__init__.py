"""The names of ``benchmark`` under the name of the installed package; they load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import benchmark

if TYPE_CHECKING:
    from benchmark import *  # noqa: F403

__version__ = benchmark.__version__
__all__ = [*benchmark.__all__]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(benchmark, name)
    raise AttributeError(f"module 'uebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
