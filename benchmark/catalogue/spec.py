"""Parse and format method specs such as ``em[granularity=class,eps=8/255]`` and ``em+ops``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

Value = bool | int | float | str | None

ANCHOR = "none"  # the attack and the defense that change nothing: clean data, and no defense

# The parameters that every data set has; they choose a subset of its images (see ``api.Dataset``).
SUBSET_PARAMS = ("train_per_class", "test_per_class", "subset_seed", "validation_per_class")
# Those of them that are left out of a resolved spec at their default, so that older keys stay.
LATER_SUBSET_PARAMS = ("validation_per_class",)

_NAME = re.compile(r"[A-Za-z0-9_.-]+")

_FRACTION = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Spec:
    """A method's name and parameters.

    Attributes:
        params: the given parameters; once a registry has resolved the spec, all parameters.
        label: the short text for tables, which is in no key.
        then: the method that is applied to the result of this one.
    """

    name: str
    params: Mapping[str, Value] = field(default_factory=dict)
    label: str = ""
    then: Spec | None = None

    def __str__(self) -> str:
        own = self.label or format_spec(self.name, self.params)
        return own if self.then is None else f"{own}+{self.then}"

    def with_params(self, params: Mapping[str, Value]) -> Spec:
        """The spec with other parameters and the same label."""
        label = self.label or format_spec(self.name, self.params)
        return replace(self, params=dict(params), label=label)

    def parts(self) -> list[Spec]:
        """This method and the methods chained after it, each by itself."""
        return [replace(self, then=None), *(self.then.parts() if self.then else [])]


def format_spec(name: str, params: Mapping[str, Value]) -> str:
    """The text form of a spec; ``parse_spec`` reads it back."""
    if not params:
        return name
    return f"{name}[{','.join(f'{key}={format_value(value)}' for key, value in params.items())}]"


def defaults_by_choice(
    by_choice: Mapping[str, Mapping[str, Value]], params: Mapping[str, Value]
) -> dict[str, Value]:
    """The defaults that depend on the values of ``params``.

    Args:
        by_choice: the defaults that hold with each choice: ``{"norm=l2": {"eps": 0.5}}``.
        params: the value of each parameter that a choice names.
    """
    defaults: dict[str, Value] = {}
    for choice, values in by_choice.items():
        name, _, value = choice.partition("=")
        if format_value(params[name]) == value:
            defaults.update(values)
    return defaults


def format_value(value: Value) -> str:
    """The text of one parameter value: ``true``, ``none``, ``0.1``, or the text itself."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse_value(text: str) -> Value:
    """Read a number, a fraction such as ``8/255``, ``true``, ``false`` or ``none``.

    Any other text stays as it is.

    Raises:
        ValueError: for a division by zero or a number that is not finite.
    """
    text = text.strip()
    low = text.lower()
    if low in ("true", "false"):
        return low == "true"
    if low in ("none", "null"):
        return None
    if (match := _FRACTION.fullmatch(text)) is not None:
        denominator = float(match[2])
        if denominator == 0:
            raise ValueError(f'"{text}" divides by zero; write a budget as, for example, 8/255')
        return float(match[1]) / denominator
    # Python reads 2024_01 as a number, but a user means a name
    for kind in (int, float) if "_" not in text else ():
        try:
            number = kind(text)
        except ValueError:
            continue
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f'"{text}" is not a finite number')
        return number
    return text


def parse_spec(text: str) -> Spec:
    """Read ``name`` or ``name[key=value,...]``, or a chain of several joined by ``+``.

    Raises:
        ValueError: if the text has another form or names a parameter twice.
    """
    first, *rest = re.split(r"\+(?![^\[]*\])", text)
    spec = _parse_one(first)
    return replace(spec, then=parse_spec("+".join(rest))) if rest else spec


def _parse_one(text: str) -> Spec:
    text = text.strip()
    name, bracket, rest = text.partition("[")
    name = name.strip()
    if not _NAME.fullmatch(name) or (bracket and not rest.endswith("]")):
        raise ValueError(
            f'cannot read "{text}"; expected name or name[key=value,key=value], '
            "for example em[granularity=class]"
        )
    if bracket and not rest[:-1].strip():
        raise ValueError(f'"{text}" sets no parameter; write {name}')
    params: dict[str, Value] = {}
    for item in filter(str.strip, rest[:-1].split(",")):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not _NAME.fullmatch(key) or not value.strip():
            raise ValueError(f'cannot read "{item.strip()}" in "{text}"; expected key=value')
        if key in params:
            raise ValueError(f'"{text}" sets "{key}" twice; keep one of the two')
        params[key] = parse_value(value)
    return Spec(name, params, text)


def split_list(text: str) -> list[str]:
    """Split a text such as ``em[eps=8/255,step=1/255],lsp`` at the commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as ``0,1,5`` and ranges such as ``0-4``.

    Raises:
        ValueError: if the text has another form.
    """
    seeds: list[int] = []
    for part in split_list(text):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f'cannot read the seeds "{text}"; write 0,1,2 or 0-4')
        if dash and int(last) < int(first):
            raise ValueError(
                f'the seeds "{text}" hold no seed: {part} runs backwards; write {last}-{first}'
            )
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def nearest(wrong: str, known: list[str]) -> str:
    """The hint ``; did you mean "x"?`` if a known name is near; else an empty text."""
    near = get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f'; did you mean "{near[0]}"?' if near else ""


def did_you_mean(wrong: str, known: list[str]) -> str:
    """The hint of ``nearest``, and the list of all known names."""
    return f"{nearest(wrong, known) or ';'} available: {', '.join(known) or '(nothing)'}"
