"""Write the command line that computes a cell again, from its record alone.

The module is pure: it reads neither data nor plugins.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from benchmark.catalogue.protocol import PROTOCOLS
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import (
    Value,
    defaults_by_choice,
    format_spec,
    format_value,
    parse_spec,
    parse_value,
)
from benchmark.storage.record import Record

# The command starts from this suite, but gives every axis, parameter and setting that decides the
# cell itself.
SUITE = "quick"
# A folder of its own: results that are there already would be shown and not computed.
FOLDER = "reproduced"
PROGRAM = "python run_benchmark.py"  # starts uebench in a clone


def command(record: Record, program: str = PROGRAM) -> str:
    """The shell command that leads to the record's key, without ``--seeds``.

    The caller adds the seeds, since a cell may have several. All parameters of data set, attack and
    defense are written out, since defaults and suites change. For the protocol, only the settings
    that differ from the named one are written. ``--plugin`` names the file of a method that is not
    part of this project.

    Args:
        record: the record of the cell.
        program: the words that start uebench where the command is read.

    Returns:
        The command, or an empty text if the record does not hold every setting or one of them
        cannot be written on a command line. A protocol whose crafting has a precision of its own is
        not noticed, since records hold the victim's precision only.
    """
    try:
        return f"{program} {shlex.join(_arguments(record))}"
    except (KeyError, ValueError, TypeError, AttributeError):
        return ""


def _arguments(record: Record) -> list[str]:
    axes = {
        "--dataset": [_dataset(record)],
        "--attacks": list(_chain(record.attack_spec)),
        "--defenses": [record.defense_spec],
    }
    names = Counter(spec["name"] for specs in axes.values() for spec in specs)
    arguments = ["run", SUITE]
    settings = [f"precision={record.precision}"]
    for option, specs in axes.items():
        texts = []
        for spec in specs:
            full = {**spec, "params": {**_replaced_by_choice(spec), **spec["params"]}}
            text, outside = _written(full)
            if outside and names[spec["name"]] > 1:
                raise ValueError(
                    f"a setting of {spec['name']} would apply to each method of that name"
                )
            texts.append(text)
            settings += [f"{spec['name']}.{name}={value}" for name, value in outside.items()]
        arguments += [option, "+".join(texts)]
    named = PROTOCOLS[record.protocol]
    settings += [
        f"protocol.{name}={format_value(value)}"
        for name, value in record.protocol_spec.items()
        if getattr(named, name) != value
    ]
    settings += [f"ratios={record.ratio}"] if record.ratio != 1 else []
    settings += [f"craft_seed={record.craft_seed}"] if record.craft_seed else []
    arguments += ["--victim", record.victim, "--protocol", record.protocol]
    for setting in settings:
        arguments += ["--set", setting]
    for file in record.sources:
        arguments += ["--plugin", file] if "/" not in file else []
    return [*arguments, "--results", FOLDER]


def _dataset(record: Record) -> Mapping[str, Any]:
    """Name and parameters of the data set; older records hold them in the label alone."""
    spec = dict(record.dataset_spec)
    name, _ = spec.pop("name"), spec.pop("fingerprint")
    return {
        "name": name,
        "params": record.dataset_params or {**parse_spec(record.dataset).params, **spec},
    }


def _chain(attack: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield attack
    if "then" in attack:
        yield from _chain(attack["then"])


def _replaced_by_choice(spec: Mapping[str, Any]) -> dict[str, Value]:
    """The plain defaults of ``later`` parameters that a choice of the spec would replace.

    Specs leave out a ``later`` parameter at its plain default.
    """
    cards = (_methods().cards(kind).get(spec["name"]) for kind in ("attack", "defense"))
    card = next((card for card in cards if card is not None), None)
    if card is None:  # a data set, or a plugin
        return {}
    full = {name: param.default for name, param in card.params.items()} | spec["params"]
    brought = defaults_by_choice(card.by_choice, full)
    return {name: card.params[name].default for name in card.later if name in brought}


@cache
def _methods() -> Registry:
    """The project's own methods."""
    return Registry()


def _written(spec: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The spec as text, and the parameters that need a ``--set`` of their own.

    Brackets cannot hold empty texts, nor texts with a comma or a bracket.

    Raises:
        ValueError: if the command line would read a value as another one.
    """
    inside: dict[str, str] = {}
    outside: dict[str, str] = {}
    for name, value in spec["params"].items():
        text = format_value(value)
        read = parse_value(text)
        # a text parameter whose value looks like a number is safe: it becomes the same text again
        if text != format_value(read) or (read is None) != (value is None):
            raise ValueError(f"{name}={text} would be read as {read}")
        (outside if not text or set(",[]") & set(text) else inside)[name] = text
    return format_spec(spec["name"], inside), outside
