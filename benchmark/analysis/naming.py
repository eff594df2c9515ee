"""Turn recorded methods and settings into the labels of tables.

The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.catalogue.spec import parse_spec

if TYPE_CHECKING:
    import pandas as pd

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=dict)


def as_json(value: Mapping[str, Any]) -> str:
    """The mapping as sorted JSON on one line.

    Facts may hold infinities, such as the PSNR of unchanged images, so this is not
    ``canonical_json``.
    """
    return _ENCODER.encode(dict(value))


def parts_of(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a recorded method and the methods chained after it."""
    part: Mapping[str, Any] | None = spec
    while part:
        yield part
        part = part.get("then")


def one_label(labels: pd.Series[str], specs: pd.Series[str]) -> pd.Series[str]:
    """Replace the labels of one spec by the shortest of them.

    A label whose spec is empty (``{}``) stays as it is.
    """
    pairs, shortest = list(zip(labels.tolist(), specs.tolist(), strict=True)), dict[str, str]()
    for label, spec in sorted(set(pairs), key=lambda pair: (len(pair[0]), pair[0])):
        shortest.setdefault(spec, label)
    renamed = [label if spec == "{}" else shortest[spec] for label, spec in pairs]
    return labels.__class__(renamed, index=labels.index, dtype=labels.dtype)


def told_apart(
    labels: pd.Series[str], specs: pd.Series[str], alike: Callable[[str, str], str] | None = None
) -> pd.Series[str]:
    """Add to each label the settings in which the specs of this label differ.

    With ``alike`` (label, spec -> text), add the settings in which all specs of the same text
    differ, except those that the label names already.
    """
    pairs = list(zip(labels.tolist(), specs.tolist(), strict=True))
    groups: dict[str, list[tuple[str, str]]] = {}
    for label, spec in sorted(set(pairs)):
        groups.setdefault(alike(label, spec) if alike else label, []).append((label, spec))
    names: dict[tuple[str, str], str] = {}
    for variants in groups.values():
        settings = [flat(json.loads(spec)) for _, spec in variants]
        differing = sorted(
            key
            for key in set().union(*settings)
            if len({as_json({"": values.get(key)}) for values in settings}) > 1
        )
        for (label, spec), values in zip(variants, settings, strict=True):
            named = _named_parameters(label) if alike else set()
            shown = [
                (key.replace("params.", ""), shown_value(values.get(key, "default")))
                for key in differing
            ]
            added = ", ".join(
                f"{_of_part(name, spec)}={value}" for name, value in shown if name not in named
            )
            names[label, spec] = f"{label} ({added})" if added else label
    renamed = [names[pair] for pair in pairs]
    return labels.__class__(renamed, index=labels.index, dtype=labels.dtype)


def _named_parameters(label: str) -> set[str]:
    """The parameters that a label names.

    A parameter of the second method of a chain is written ``then.eps``, one of the third method
    ``then.then.eps``.
    """
    try:
        parts = parse_spec(label).parts()
    except ValueError:  # a label that is no spec names none
        return set()
    return {"then." * index + name for index, part in enumerate(parts) for name in part.params}


def _of_part(name: str, spec: str) -> str:
    """Name a parameter of a chain by its method: ``then.eps`` becomes ``ops.eps``.

    A parameter of a method without a chain stays ``eps``.
    """
    parts = [str(part.get("name", "")) for part in parts_of(json.loads(spec))]
    depth = name.count("then.")
    return (
        f"{parts[depth]}.{name.removeprefix('then.' * depth)}" if depth < len(parts) > 1 else name
    )


def methods_of(label: str, spec: str) -> str:
    """The names of a recorded method and of the methods chained after it: ``em+ops``."""
    return "+".join(
        str(part.get("name", label)) for part in parts_of(json.loads(spec) or {"name": label})
    )


def shown_value(value: object) -> str:
    """A setting as text; a long number that is a multiple of 0.1/255 is written as ``8/255``."""
    if isinstance(value, float) and math.isfinite(value) and len(str(value)) > 8:
        levels = round(255 * value, 1)
        if levels and value == levels / 255:
            return f"{levels:g}/255"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; dots join the keys."""
    entries: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            entries |= flat(value, f"{prefix}{key}.")
        else:
            entries[f"{prefix}{key}"] = value
    return entries
