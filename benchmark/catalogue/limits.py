"""Limits of parameters: choices (``Literal``) and ranges (annotated-types).

``read_annotation`` reads limits from a file's syntax tree, for the registry. ``limits_of`` reads
them from the annotations of an imported class. ``Limits.problem`` checks a value.
"""

from __future__ import annotations

import ast
import math
import operator
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from benchmark.catalogue.source import literal, qualified
from benchmark.catalogue.spec import Value, nearest

TYPES = ("int", "float", "str", "bool")
BOUNDS: Mapping[str, Callable[[Any, float], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
RANGES = {"Gt": ["gt"], "Ge": ["ge"], "Lt": ["lt"], "Le": ["le"], "Interval": list(BOUNDS)}
WORDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
SIGNS = {"gt": "<", "ge": "<=", "lt": "<", "le": "<="}
# If the documentation of a parameter says this, a value of 8 probably should have been 8/255.
IN_UNITS = "[0, 1] units"


@dataclass(frozen=True)
class Limits:
    """The choices and the range of one parameter; nothing is limited by default.

    Attributes:
        choices: the allowed values; empty if any value is allowed.
        bounds: bounds of the range, the lower one first: pairs of ``gt``, ``ge``, ``lt`` or ``le``
            and a number.
        optional: whether None is allowed too.
    """

    choices: tuple[Value, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()
    optional: bool = False

    def __or__(self, other: Limits) -> Limits:
        """Combine the limits of the types of a union, or those of a type and a further range."""
        return Limits(
            self.choices + other.choices,
            self.bounds + other.bounds,
            self.optional or other.optional,
        )

    def allow(self, value: Value) -> bool:
        """Whether the value is one of the choices and in the range.

        NaN and infinity are in no range.
        """
        if value is None and self.optional:
            return True
        if self.choices and not any(_same(value, choice) for choice in self.choices):
            return False
        if not self.bounds:
            return True
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and all(BOUNDS[bound](value, limit) for bound, limit in self.bounds)
        )

    def shown(self, name: str) -> str:
        """The limits as text: ``sample or class``, ``at least 1``, ``0 < eps <= 1``, or empty."""
        if self.choices:
            *others, last = (str(choice) for choice in self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        if len(self.bounds) == 2:
            (low, least), (high, most) = self.bounds
            return f"{_number(least)} {SIGNS[low]} {name} {SIGNS[high]} {_number(most)}"
        return " and ".join(f"{WORDS[bound]} {_number(limit)}" for bound, limit in self.bounds)

    def problem(self, name: str, value: Value, doc: str = "", written: str = "") -> str | None:
        """Say what is wrong with a value, and what was expected; None if it is allowed.

        Args:
            name: the parameter.
            value: the value to check.
            doc: the documentation of the parameter, which names the unit of a range.
            written: the value as the user wrote it, such as ``300/255``.
        """
        if self.allow(value):
            return None
        if isinstance(value, str):
            text = f'"{value}"'
        else:
            text = written or (f"{value:g}" if isinstance(value, float) else str(value))
        wrong = f"{name}={text}, expected {self.shown(name)}"
        if self.choices:
            return wrong + nearest(str(value), [str(choice) for choice in self.choices])
        meaning = doc.partition(";")[0].rstrip(". ")
        wrong += f" ({meaning})" if meaning else ""
        if IN_UNITS in doc and isinstance(value, int | float) and self._is_level(value):
            wrong += f"; write {value:g}/255, not {value:g}"
        return wrong

    def _is_level(self, value: float) -> bool:
        """Whether a value looks like levels from 0 to 255; 300/255 does not."""
        return value >= 1 and value == round(value, 2) and self.allow(value / 255)


def read_annotation(
    node: ast.expr, names: Mapping[str, str], where: str
) -> tuple[tuple[str, ...], Limits]:
    """Read a parameter's types and limits from its annotation, without importing anything.

    Args:
        node: the annotation.
        names: what the imports of the file stand for: ``{"Literal": "typing.Literal"}``.
        where: name of the parameter for messages.

    Returns:
        The types, some of ``int``, ``float``, ``str``, ``bool`` and ``None``, and the limits.

    Raises:
        ValueError: for an annotation of another form.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return read_annotation(ast.parse(node.value, mode="eval").body, names, where)
    if isinstance(node, ast.Constant) and node.value is None:
        return ("None",), Limits(optional=True)
    if isinstance(node, ast.Name) and node.id in TYPES:
        return (node.id,), Limits()
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        first, limits = read_annotation(node.left, names, where)
        second, more = read_annotation(node.right, names, where)
        if {"None"} not in (set(first), set(second)) and (limits != more or limits.choices):
            raise ValueError(f"{where}: choices and ranges go with None alone: {ast.unparse(node)}")
        return tuple(dict.fromkeys(first + second)), limits | more
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if qualified(node.value, names) == "typing.Literal":
            choices = tuple(literal(part, where) for part in parts)
            kinds = tuple(dict.fromkeys(type(choice).__name__ for choice in choices))
            return kinds, Limits(choices)
        if qualified(node.value, names) == "typing.Annotated":
            kinds, limits = read_annotation(parts[0], names, where)
            if not {"int", "float"} & set(kinds):
                raise ValueError(f"{where}: a range needs int or float, not {' | '.join(kinds)}")
            bounds = [bound for part in parts[1:] for bound in _range(part, names, where)]
            return kinds, limits | Limits(bounds=tuple(bounds))
    raise ValueError(
        f"{where} is annotated with {ast.unparse(node)}; a parameter is int, float, str or bool "
        "(or one of these with None), Literal[...] of typing, or Annotated[float, Interval(...)]"
    )


def _range(node: ast.expr, names: Mapping[str, str], where: str) -> Iterator[tuple[str, float]]:
    """Yield the bounds of a ``Ge(0)`` or ``Interval(gt=0, le=1)``, in the order of ``BOUNDS``."""
    call = node if isinstance(node, ast.Call) else None
    package, _, name = (qualified(call.func, names) if call else "").rpartition(".")
    if call is None or package != "annotated_types" or name not in RANGES:
        raise ValueError(
            f"{where}: Annotated holds {ast.unparse(node)}, which the registry cannot read; "
            "write Gt, Ge, Lt, Le or Interval, imported from annotated_types"
        )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name != "Interval":
        given |= dict(zip(RANGES[name], call.args, strict=False))
    if not given or set(given) - set(RANGES[name]) or len(given) != len(call.args + call.keywords):
        raise ValueError(f"{where}: {ast.unparse(node)} has no bounds of the form gt=0, le=1")
    for bound in BOUNDS:
        if (value := given.get(bound)) is not None:
            limit = literal(value, where)
            if not isinstance(limit, int | float):
                raise ValueError(f"{where}: {ast.unparse(node)} has a bound that is no number")
            yield bound, limit


def limits_of(hint: Any) -> Limits:
    """The limits in the annotation of an imported class; none if its form is unknown."""
    origin, parts = get_origin(hint), get_args(hint)
    limits = Limits(optional=hint is type(None))
    if origin is Literal:
        limits |= Limits(parts)
    elif origin is Annotated:
        limits |= limits_of(parts[0])
        for part in parts[1:]:
            given = [(bound, getattr(part, bound, None)) for bound in BOUNDS]
            limits |= Limits(bounds=tuple((name, at) for name, at in given if at is not None))
    elif origin in (Union, types.UnionType):
        for part in parts:
            limits |= limits_of(part)
    return limits


@cache
def limited_fields(cls: type[Any]) -> Mapping[str, Limits]:
    """The limits of each field of a dataclass, by name; fields without limits are left out."""
    hints = get_type_hints(cls, include_extras=True)
    names = getattr(cls, "__dataclass_fields__", {})
    by_name = {name: limits_of(hints[name]) for name in names}
    return {name: limits for name, limits in by_name.items() if limits != Limits()}


def check_fields(instance: object) -> None:
    """Check the fields of a dataclass instance against their annotations.

    Raises:
        ValueError: for the first field whose value is not among its choices or not in its range.
    """
    cls: type[Any] = type(instance)
    for name, limits in limited_fields(cls).items():  # type: ignore[arg-type]  # it is hashable
        value = getattr(instance, name)
        if not limits.allow(value):
            raise ValueError(limits.problem(name, value, _documented(cls).get(name, "")))


def parameter_docs(docstring: str) -> dict[str, str]:
    """The texts of the lines ``name: text`` in a docstring's section of parameters, by name."""
    docs: dict[str, str] = {}
    inside, last = False, ""
    for line in docstring.splitlines():
        if line.strip() in ("Parameters:", "Args:"):
            inside = True
        elif inside and not line.strip():
            break
        elif inside:
            name, colon, text = line.strip().partition(":")
            if colon and name.isidentifier():
                docs[name], last = text.strip(), name
            elif last:
                docs[last] += " " + line.strip()
    return docs


def _documented(cls: type) -> dict[str, str]:
    docs: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        docs |= parameter_docs(vars(ancestor).get("__doc__") or "")
    return docs


def _same(value: Value, choice: Value) -> bool:
    """Whether both are equal, and both bool or neither, since ``1 == True``."""
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def _number(value: float) -> str:
    """A bound as text: ``0.5/255`` rather than 0.00196078."""
    text = f"{value:g}"
    levels = value * 255
    if len(text) > 6 and abs(levels - round(levels, 2)) < 1e-9:
        return f"{levels:g}/255"
    return text
