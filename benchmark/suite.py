"""Suites: the axes of the grid, read from YAML and checked all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from benchmark.protocol import PROTOCOLS, get_protocol
from benchmark.registry import Registry
from benchmark.spec import Spec, Value, did_you_mean, parse_spec, parse_value, split_list

FOLDER = Path(__file__).resolve().parent / "suites"
SECTIONS = ("attacks", "defenses", "datasets", "victims")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


Many = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class Suite(BaseModel):
    """The axes of a grid. Every axis takes one value or a list.

    ``parameters`` holds, for a method's name, values that replace its defaults throughout the suite; ``protocol_values`` does
    the same for the protocol. A label such as ``em[granularity=class]`` stays as short as it is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = ""
    datasets: Many
    attacks: Many
    defenses: Many
    victims: Many = ("resnet18",)
    protocols: Many = ("std60",)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_as_list), Field(min_length=1)] = (0,)
    ratios: Annotated[tuple[float, ...], BeforeValidator(_as_list), Field(min_length=1)] = (1.0,)
    craft_seed: int = 0
    precision: str = "auto"
    parameters: Mapping[str, Mapping[str, Value]] = {}
    protocol_values: Mapping[str, Value] = {}

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {list(seeds)} must be different and not negative")
        return seeds

    @field_validator("ratios")
    @classmethod
    def _ratios(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= ratio <= 1 for ratio in ratios):
            raise ValueError(f"poison ratios {list(ratios)} must be from 0 to 1")
        return ratios

    @field_validator("precision")
    @classmethod
    def _precision(cls, precision: str) -> str:
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f'precision "{precision}" is unknown; expected auto, fp32 or bf16')
        return precision


class SuiteError(ValueError):
    """Everything wrong with a suite, with its place, at once."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}\n{listed}")


def suite_names() -> list[str]:
    """The suites that come with uebench."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read_suite(name: str) -> tuple[dict[str, Any], str]:
    """The raw axes of a suite by name or path of a YAML file, and where they were read.

    Raises:
        ValueError: if there is no such suite or the file is not a YAML mapping.
    """
    file = Path(name)
    if not (file.suffix in (".yaml", ".yml") and file.is_file()):
        file = FOLDER / f"{name}.yaml"
        if not file.is_file() or file.parent != FOLDER:
            raise ValueError(f'unknown suite "{name}"{did_you_mean(name, suite_names())}; or give the path of a YAML file')
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} holds a {type(raw).__name__}, expected the axes of a suite (attacks, defenses, datasets, ...)")
    return {"name": file.stem, **raw}, str(file)


def load_suite(name: str, registry: Registry, axes: Mapping[str, Any] | None = None, settings: Sequence[str] = ()) -> Suite:
    """A checked suite.

    Args:
        name: of a shipped suite, or the path of a YAML file.
        axes: axes that replace those of the file, for example ``{"attacks": ["em"]}``.
        settings: ``key=value`` texts: ``em.max_rounds=20`` for a method, ``protocol.epochs=3``, or an axis such as ``seeds=0``.

    Raises:
        SuiteError: with every problem found, each with its path.
    """
    raw, where = read_suite(name)
    raw.update(axes or {})
    problems = [problem for problem in (_apply(raw, setting) for setting in settings) if problem]
    try:
        suite = Suite(**raw)
    except ValidationError as error:
        problems += [_problem(item) for item in error.errors()]
        suite = None
    problems += _method_problems(raw, registry)
    if problems or suite is None:
        raise SuiteError(where, problems)
    return suite


def _apply(raw: dict[str, Any], setting: str) -> str | None:
    """Applies one ``--set``; returns what is wrong with it, if anything."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        return f"--set {setting}: expected key=value, for example --set em.max_rounds=20 or --set protocol.epochs=3"
    owner, dot, parameter = key.rpartition(".")
    try:
        value = parse_value(text)
    except ValueError as error:
        return f"--set {setting}: {error}"
    if not dot:
        if key not in Suite.model_fields:
            return f'--set {setting}: a suite has no "{key}"{did_you_mean(key, sorted(Suite.model_fields))}'
        raw[key] = split_list(text) if isinstance(raw.get(key), (list, tuple)) or key.endswith("s") else value
        return None
    if owner == "protocol":
        raw["protocol_values"] = {**raw.get("protocol_values", {}), parameter: value}
    else:
        every = dict(raw.get("parameters", {}))
        every[owner] = {**every.get(owner, {}), parameter: value}
        raw["parameters"] = every
    return None


def _problem(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f'{path}: a suite has no "{path}"{did_you_mean(path, sorted(Suite.model_fields))}'
    if item["type"] == "missing":
        return f"{path}: missing; name at least one"
    return f"{path}: {str(item['msg']).removeprefix('Value error, ')}"


def _method_problems(raw: Mapping[str, Any], registry: Registry) -> list[str]:
    """What is wrong with the names and parameters in a suite, each with its path."""
    problems: list[str] = []
    parameters = raw.get("parameters") or {}
    names: set[str] = set()
    for section in SECTIONS:
        for position, text in enumerate(_as_list(raw.get(section) or [])):
            try:
                spec = parse_spec(str(text))
                names.add(spec.name)
                registry.resolve(section.removesuffix("s"), spec, _mapping(parameters, spec.name))
            except ValueError as error:
                problems.append(f"{section}[{position}]: {error}")
    for position, text in enumerate(_as_list(raw.get("protocols") or [])):
        try:
            protocol = get_protocol(str(text))
            protocol.with_values(raw.get("protocol_values") or {})
        except ValueError as error:
            problems.append(f"protocols[{position}]: {error}")
    known = {name for section in SECTIONS for name in registry.cards(section.removesuffix("s"))}
    for name in parameters if isinstance(parameters, Mapping) else ():
        if name not in known:
            problems.append(f'parameters.{name}: nothing is called "{name}"{did_you_mean(str(name), sorted(known | set(PROTOCOLS)))}')
    return problems


def _mapping(parameters: Any, name: str) -> Mapping[str, Value]:
    values = parameters.get(name) if isinstance(parameters, Mapping) else None
    return {key: parse_value(value) if isinstance(value, str) else value for key, value in (values or {}).items()}


def method_parameters(suite: Suite, name: str) -> Mapping[str, Value]:
    """The suite's own defaults for a method, with texts such as ``8/255`` read as numbers."""
    return _mapping(suite.parameters, name)


def resolve(suite: Suite, kind: str, text: str, registry: Registry) -> Spec:
    """A full spec of one entry of a suite, labelled as the suite writes it."""
    spec = parse_spec(text)
    return registry.resolve(kind, spec, method_parameters(suite, spec.name))
