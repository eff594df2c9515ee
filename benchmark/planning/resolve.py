"""Resolve the names and parameters of a suite, each once, and collect all problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmark.catalogue.presets import preset_of
from benchmark.catalogue.protocol import PROTOCOLS, Protocol, get_protocol
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import (
    Spec,
    Value,
    did_you_mean,
    format_spec,
    format_value,
    parse_spec,
    parse_value,
)

SECTIONS = ("attacks", "defenses", "datasets", "victims")


@dataclass
class Axes:
    """The resolved axes of a suite whose entries are names.

    Attributes:
        specs: full specs, by section.
        protocols: with the values of the suite.
        problems: a message for each entry that cannot be resolved; such entries are left out above.
    """

    specs: dict[str, tuple[Spec, ...]] = field(default_factory=dict)
    protocols: tuple[Protocol, ...] = ()
    problems: list[str] = field(default_factory=list)


def resolve_axes(raw: Mapping[str, Any], registry: Registry) -> Axes:
    """Resolve every name and parameter of a suite.

    Args:
        raw: the suite as it was read. Entries of a wrong type are ignored here: the model ``Suite``
            reports them.
        registry: knows the methods.
    """
    axes, used = Axes(), set[str]()
    for section in SECTIONS:
        axes.specs[section] = tuple(_specs(section, raw, registry, used, axes.problems))
    axes.problems += _mixed_presets(axes.specs["attacks"], registry)
    axes.protocols = tuple(_protocols(raw, axes.problems))
    axes.problems += _unused_parameters(raw.get("parameters") or {}, used, registry)
    return axes


def resolve_spec(
    kind: str, text: str, registry: Registry, parameters: Mapping[str, Any] | None = None
) -> Spec:
    """The full spec of ``text``, with the text as its label.

    Args:
        kind: ``attack``, ``defense``, ``dataset`` or ``victim``.
        text: such as ``em[eps=4/255]``; ``+`` joins attacks to a chain.
        registry: knows the methods.
        parameters: values that replace defaults, by the name of the method.

    Raises:
        ValueError: if the text has another form, a name is unknown, or the method does not allow
            its parameters.
    """
    return _full(kind, parse_spec(text), registry, parameters or {})


def _full(kind: str, spec: Spec, registry: Registry, parameters: Mapping[str, Any]) -> Spec:
    if spec.then is not None and kind != "attack":
        raise ValueError(
            f'"{spec}" joins two {kind}s with +; only attacks can be applied one after the other'
        )
    own = registry.resolve(kind, replace(spec, then=None), table(parameters, spec.name))
    if spec.then is None:
        return own
    return replace(own, then=_full(kind, spec.then, registry, parameters))


def _specs(
    section: str, raw: Mapping[str, Any], registry: Registry, used: set[str], problems: list[str]
) -> Iterator[Spec]:
    """Yield the specs of a section.

    The names of all methods, even of those with problems, are added to ``used``.
    """
    kind = section.removesuffix("s")
    for position, text in enumerate(as_list(raw.get(section) or [])):
        if not isinstance(text, str):
            continue  # pydantic reports it
        try:
            spec = parse_spec(text)
            used.update(part.name for part in spec.parts())
            yield _full(kind, spec, registry, raw.get("parameters") or {})
        except ValueError as error:
            problems.append(f"{section}[{position}]: {error}")


def _protocols(raw: Mapping[str, Any], problems: list[str]) -> Iterator[Protocol]:
    for position, text in enumerate(as_list(raw.get("protocols") or [])):
        if not isinstance(text, str):
            continue
        try:
            yield get_protocol(text).with_values(table(raw, "protocol_values"))
        except ValueError as error:
            problems.append(f"protocols[{position}]: {error}")


def _mixed_presets(attacks: tuple[Spec, ...], registry: Registry) -> list[str]:
    """Report one problem if the attacks have several presets."""
    presets: dict[str, str] = {}  # preset -> the first entry that has it
    for spec in attacks:
        for part in spec.parts():
            params = registry.card("attack", part.name).params.values()
            defaults = {param.name: param.default for param in params}
            if (preset := preset_of({**defaults, **part.params})) is not None:
                presets.setdefault(preset, str(spec))
    if len(presets) < 2:
        return []
    mixed = ", ".join(f"{text} ({preset})" for preset, text in presets.items())
    return [
        f"attacks: {mixed}: a table would average attacks with the defects of released code "
        "and without; give each a suite"
    ]


def _unused_parameters(parameters: Any, used: set[str], registry: Registry) -> Iterator[str]:
    """Yield the problems with parameters of methods that no axis names.

    The parameters of the other methods are checked when their specs are resolved.
    """
    if not isinstance(parameters, Mapping):
        return  # pydantic reports it
    kinds = [section.removesuffix("s") for section in SECTIONS]
    cards = [card for kind in kinds for card in registry.cards(kind).values()]
    known = {card.name for card in cards}
    for name in parameters:
        if name not in known:
            hint = did_you_mean(str(name), sorted(known | set(PROTOCOLS)))
            yield f'parameters.{name}: nothing is called "{name}"{hint}'
        elif name not in used:
            given = table(parameters, name)
            for card in cards:
                if card.name == name:
                    yield from (f"parameters.{name}: {text}" for text in card.unknown(given))


def without_effect(
    settings: Iterable[str],
    parameters: Mapping[str, Any],
    specs: Mapping[str, Iterable[Spec]],
    registry: Registry,
) -> Iterator[str]:
    """Yield a problem for each setting of a method that no spec of the suite takes.

    Args:
        settings: ``key=value`` texts, which the user typed.
        parameters: those of the suite, with the settings applied.
        specs: the full specs of the suite, by section.
        registry: knows the methods.
    """
    parts = [
        (section.removesuffix("s"), part)
        for section, chains in specs.items()
        for chain in chains
        for part in chain.parts()
    ]
    for setting in dict.fromkeys(settings):
        key, _, text = setting.partition("=")
        owner, _, name = key.rpartition(".")
        if owner in ("", "protocol"):
            continue
        value = table(parameters, owner)[name]  # a later setting may have replaced the typed value
        own = [(kind, part) for kind, part in parts if part.name == owner]
        if not own:
            yield f"--set {setting}: no {owner} in this suite; add it, or leave the setting out"
        elif not any(_takes(registry, kind, part, name, value) for kind, part in own):
            yield f"--set {setting}: changes nothing, since {_reason(own[0][1], name, text)}"


def _takes(registry: Registry, kind: str, spec: Spec, name: str, value: Value) -> bool:
    """Whether a parameter of a full spec has this value."""
    default = registry.card(kind, spec.name).params[name].default
    return spec.params.get(name, default) in (value, format_value(value))


def _reason(spec: Spec, name: str, text: str) -> str:
    """Why a full spec does not take the suite's value of a parameter."""
    written = parse_spec(str(spec)).params
    if name in written:
        return f"{spec} sets {name} itself; change it there"
    better = format_spec(spec.name, {**written, name: text.strip()})
    return f"{spec} has defaults of its own; write {better}"


def table(owner: Any, name: str) -> Mapping[str, Value]:
    """The mapping ``name`` of ``owner``, with its texts read as values; empty if missing."""
    values = owner.get(name) if isinstance(owner, Mapping) else None
    return numbers(values) if isinstance(values, Mapping) else {}


def numbers(values: Any) -> Any:
    """Read the texts of a mapping, such as ``8/255``, as values; return anything else as it is."""
    if not isinstance(values, Mapping):
        return values
    return {
        key: parse_value(value) if isinstance(value, str) else value
        for key, value in values.items()
    }


def as_list(value: Any) -> Any:
    """Put a single value into a list; return a list as it is."""
    return value if isinstance(value, (list, tuple)) else [value]
