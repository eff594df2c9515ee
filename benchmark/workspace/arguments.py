"""Read the arguments of the Python functions, and name the argument that is wrong."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from benchmark.catalogue.spec import ANCHOR, parse_seeds, split_list

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry

Suite = str | Path | Mapping[str, Any]
Axis = str | Sequence[str] | None
Seeds = SupportsIndex | str | Iterable[SupportsIndex] | None
Settings = Mapping[str, object] | Sequence[str]
Plugins = str | Path | Sequence[str | Path]

# words of the command line, which messages of the lower floors use -> words of Python
PYTHON_WORDS = {
    "the options given": "the arguments given",
    "--set ": "settings ",
    "--plugin ": "plugins=",
    "--device cpu": 'device="cpu"',
    "--policy force": 'policy="force"',
    "--data-root": "data_root=",
    "--results": "results=",
    "--download": "download=True",
}


@contextmanager
def python_words() -> Iterator[None]:
    """Name arguments in errors as Python users write them: ``device="cpu"``."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        from benchmark.planning.suite import SuiteError

        match error.args:
            case (str() as message,):
                error.args = (_reworded(message),)
        if isinstance(error, SuiteError):
            error.where = _reworded(error.where)
            error.problems = tuple(_reworded(problem) for problem in error.problems)
        raise


def _reworded(message: str) -> str:
    for option, word in PYTHON_WORDS.items():
        message = message.replace(option, word)
    return message


def whole(name: str, value: Any) -> int:
    """A whole number from 0 on; NumPy's integers become Python's.

    Args:
        name: the argument, for the message.
        value: what the caller gave.

    Raises:
        TypeError: if the value is not a whole number.
        ValueError: if it is negative.
    """
    expected = "expected a whole number from 0 on"
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong_type(name, value, expected) from None
    if isinstance(value, bool):
        raise wrong_type(name, value, expected)
    if number < 0:
        raise ValueError(f"{name}={number}: {expected}")
    return number


def items(name: str, value: Any, expected: str) -> list[Any]:
    """The items of a list, tuple, array or other iterable.

    Args:
        name: the argument, for the message.
        value: what the caller gave.
        expected: how the message goes on after "expected".

    Raises:
        TypeError: if the value cannot be iterated.
    """
    if not isinstance(value, Iterable):
        raise wrong_type(name, value, f"expected {expected}")
    return list(value)


def read_paths(files: Plugins) -> tuple[Path, ...]:
    """The paths of plugins."""
    if isinstance(files, (str, Path)):
        return (Path(files),)
    return tuple(Path(file) for file in items("plugins", files, "paths of Python files"))


def given_suite(suite: Suite) -> str | Mapping[str, Any]:
    """The suite in a form of ``Workspace.suite``."""
    if not isinstance(suite, (str, Path, Mapping)):
        raise wrong_type("suite", suite, "expected a name, the path of a YAML file, or a mapping")
    return str(suite) if isinstance(suite, Path) else suite


def read_axes(**axes: Axis) -> dict[str, Any]:
    """The axes that the caller gave, each as a list."""
    return {name: _specs(name, value) for name, value in axes.items() if value is not None}


def _specs(name: str, value: str | Sequence[str]) -> list[str]:
    if isinstance(value, str):
        return split_list(value)
    return items(name, value, "a text or a list of texts")


def read_seeds(seeds: Seeds) -> dict[str, Any]:
    """The axis ``seeds``, if the caller gave it.

    Raises:
        TypeError, ValueError: if the seeds cannot be read.
    """
    if seeds is None:
        return {}
    if isinstance(seeds, str):
        try:
            return {"seeds": parse_seeds(seeds)}
        except ValueError as error:
            raise ValueError(f"seeds=: {error}") from error
    # arrays of no dimensions look iterable, and hold one number
    if isinstance(seeds, Iterable) and getattr(seeds, "ndim", None) != 0:
        return {"seeds": [whole("seeds", seed) for seed in seeds]}
    return {"seeds": [whole("seeds", seeds)]}


def read_settings(settings: Settings) -> list[str]:
    """The settings as ``key=value`` texts."""
    if not isinstance(settings, Mapping):
        if isinstance(settings, str):
            return [settings]
        return items("settings", settings, 'a dictionary such as {"protocol.epochs": 3}')
    return [f"{name}={_text(value)}" for name, value in settings.items()]


def check_table(table: Any) -> None:
    """Refuse anything but a long table.

    Raises:
        TypeError: if it is not a data frame.
        ValueError: if it lacks a column.
    """
    from benchmark.analysis.table import CELL, RUN

    expected = "expected the long table, from load(...) or Run.table"
    if not hasattr(table, "columns"):
        raise wrong_type("table", table, expected)
    needed = (*CELL, *RUN, "status", "test_acc", "superseded")
    if absent := [column for column in needed if column not in table.columns]:
        raise ValueError(f"table has no column {', '.join(absent)}; {expected}")


def check_purifies(name: str, registry: Registry) -> None:
    """Refuse a defense that does not change images, ``none`` too.

    Raises:
        ValueError: if it does not.
    """
    if name == ANCHOR:
        raise ValueError(f'defense "{ANCHOR}" changes nothing; name one that changes images')
    registry.check_purifies(name)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def wrong_type(name: str, value: object, expected: str) -> TypeError:
    """The error for an argument of a type that does not fit."""
    return TypeError(f"{name}={value!r} is of type {type(value).__name__}; {expected}")
