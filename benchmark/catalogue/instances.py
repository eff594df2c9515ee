"""Make the instances of a method's class follow what the class declares of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from benchmark.catalogue.limits import check_fields
from benchmark.catalogue.spec import Value, defaults_by_choice


def check_when_built(cls: type) -> None:
    """Let each instance check its choices and ranges before its own ``__post_init__``."""
    own = getattr(cls, "__post_init__", None)

    def __post_init__(self: object) -> None:  # noqa: N807  the name that dataclasses call
        check_fields(self)
        if own is not None:
            own(self)

    setattr(cls, "__post_init__", __post_init__)  # noqa: B010  cls is only a type here


def make_frozen(cls: type, root: type) -> None:
    """Make a class, and its parents in shared files, frozen dataclasses in place.

    Args:
        root: the base of all methods; classes of its module stay as they are.
    """
    for ancestor in reversed(cls.__mro__):
        in_file = issubclass(ancestor, root) and ancestor.__module__ != root.__module__
        if ancestor is cls or (in_file and "__dataclass_fields__" not in vars(ancestor)):
            dataclass(frozen=True, kw_only=True)(ancestor)


def use_defaults_by_choice(cls: type, by_choice: Mapping[str, Mapping[str, Value]]) -> None:
    """Let the constructor of a dataclass take the defaults that a choice brings, as a spec does."""
    plain: dict[str, Any] = {item.name: item.default for item in fields(cls)}
    build = cls.__init__  # type: ignore[misc]

    def __init__(self: object, **given: Value) -> None:  # noqa: N807  replaces the dataclass's
        chosen = defaults_by_choice(by_choice, {**plain, **given})
        build(self, **{**chosen, **given})

    setattr(cls, "__init__", __init__)  # noqa: B010  mypy takes no assignment to a method
