"""Read suites, the axes of the grid, from YAML, and report all problems at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
)

from benchmark.catalogue.presets import preset_of
from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import (
    Spec,
    Value,
    did_you_mean,
    parse_seeds,
    parse_value,
    split_list,
)
from benchmark.planning.resolve import SECTIONS, as_list, numbers, resolve_axes, without_effect
from benchmark.planning.yaml_text import load_yaml

if TYPE_CHECKING:
    from benchmark.data import DatasetInfo

FOLDER = Path(__file__).resolve().parent.parent / "suites"
TAKEN = ("store", "all", ".", "..")  # names that the results folder of a suite must not have
VICTIM, PROTOCOL = "resnet18", "std60"  # the defaults of a suite
DEFAULT_AXES = ("datasets", "victims", "protocols")


def _seed_list(value: Any) -> Any:
    return parse_seeds(value) if isinstance(value, str) else as_list(value)


Many = Annotated[tuple[str, ...], BeforeValidator(as_list), Field(min_length=1)]


class Suite(BaseModel):
    """The axes of a grid. Every axis takes one value or a list.

    ``parameters`` holds values that replace the defaults of a method throughout the suite, by the
    name of the method; ``protocol_values`` does the same for the protocols. A label such as
    ``em[granularity=class]`` stays as short as it is written. ``craft_seed`` is the seed of poisons
    and purified sets, which all victim seeds share; with ``seed`` each victim seed has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = ""
    datasets: Many = ("embedded",)
    attacks: Many
    defenses: Many
    victims: Many = (VICTIM,)
    protocols: Many = (PROTOCOL,)
    seeds: Annotated[tuple[StrictInt, ...], BeforeValidator(_seed_list), Field(min_length=1)] = (0,)
    ratios: Annotated[tuple[float, ...], BeforeValidator(as_list), Field(min_length=1)] = (1.0,)
    craft_seed: int | Literal["seed"] = 0
    precision: str = "auto"
    parameters: Mapping[str, Mapping[str, Value]] = {}
    protocol_values: Annotated[Mapping[str, Value], BeforeValidator(numbers)] = {}

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not name or name in TAKEN or any(mark in name for mark in "/\\\0"):
            raise ValueError(
                f'"{name}" cannot be the name of a folder of results; '
                "expected a plain name such as nightly"
            )
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {list(seeds)} must be different and not negative")
        return seeds

    @field_validator("craft_seed", mode="before")
    @classmethod
    def _craft_seed(cls, value: object) -> object:
        if value == "seed" or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise ValueError(
            f'{value!r} is no craft seed; expected a whole number, or "seed": '
            "poisons and purified sets of their own for each victim seed"
        )

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


@dataclass(frozen=True, kw_only=True)
class ResolvedSuite:
    """A suite with every name looked up, every parameter filled in, and every value checked.

    ``make_plan`` only multiplies its axes. ``craft_seed`` is None if each victim seed has poisons
    and purified sets of its own.
    """

    name: str
    datasets: tuple[Spec, ...]
    attacks: tuple[Spec, ...]
    defenses: tuple[Spec, ...]
    victims: tuple[str, ...] = (VICTIM,)
    protocols: tuple[Protocol, ...] = (get_protocol(PROTOCOL),)
    seeds: tuple[int, ...] = (0,)
    ratios: tuple[float, ...] = (1.0,)
    craft_seed: int | None = 0
    precision: str = "auto"


class SuiteError(ValueError):
    """All problems of a suite, each with its place in the suite."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where, self.problems = where, tuple(problems)
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}\n{listed}"
        )


def suite_names() -> list[str]:
    """The names of the suites that come with uebench."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read_suite(name: str | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read the raw axes of a suite, and say where they were read.

    Args:
        name: the name of a shipped suite, the path of a YAML file, or the axes themselves.

    Raises:
        ValueError: if there is no such suite, or if the file is not a YAML mapping or names a key
            twice.
    """
    if isinstance(name, Mapping):
        return {"name": "custom", **name}, "the suite given"
    file = Path(name)
    if not (file.suffix in (".yaml", ".yml") and file.is_file()):
        file = FOLDER / f"{name}.yaml"
        if not file.is_file() or file.parent != FOLDER:
            raise ValueError(
                f'unknown suite "{name}"{did_you_mean(name, suite_names())}; '
                "or give the path of a YAML file"
            )
    try:
        raw = load_yaml(file.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(
            f"{file} holds a {type(raw).__name__}, "
            "expected the axes of a suite (attacks, defenses, datasets, ...)"
        )
    return {"name": file.stem, **raw}, str(file)


def load_suite(
    name: str | Mapping[str, Any],
    registry: Registry,
    axes: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> ResolvedSuite:
    """Read, check and resolve a suite.

    Args:
        name: the name of a shipped suite, the path of a YAML file, or the axes themselves.
        registry: knows the methods.
        axes: axes that replace those of the file, for example ``{"attacks": ["em"]}``.
        settings: ``key=value`` texts: ``em.max_rounds=20`` for a method, ``protocol.epochs=3``,
            or an axis such as ``seeds=0``. A setting of a method must reach a spec of the suite.

    Raises:
        SuiteError: with every problem found, each with its path.
    """
    raw, where = read_suite(name)
    raw.update(axes or {})
    problems = [problem for problem in (_apply(raw, setting) for setting in settings) if problem]
    suite = _resolved(raw, where, registry, problems)
    specs = {section: getattr(suite, section) for section in SECTIONS if section != "victims"}
    if idle := list(without_effect(settings, raw.get("parameters", {}), specs, registry)):
        raise SuiteError(where, idle)
    return suite


def resolve_suite(suite: Suite, registry: Registry) -> ResolvedSuite:
    """Resolve a suite that was made in Python.

    Raises:
        SuiteError: with every problem found, each with its path.
    """
    return _resolved(suite.model_dump(), suite.name, registry, [])


def _resolved(
    raw: Mapping[str, Any], where: str, registry: Registry, problems: Sequence[str]
) -> ResolvedSuite:
    listed = list(problems)
    suite = None
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        # pydantic tries a value as four types and reports four errors, which become one problem
        listed += dict.fromkeys(_problem(item) for item in error.errors())
    defaults = {name: Suite.model_fields[name].default for name in DEFAULT_AXES}
    given = {name: value for name, value in raw.items() if value}
    axes = resolve_axes({**defaults, **given}, registry)
    listed += axes.problems
    if listed or suite is None:
        raise SuiteError(where, listed)
    return ResolvedSuite(
        name=suite.name,
        datasets=axes.specs["datasets"],
        attacks=axes.specs["attacks"],
        defenses=axes.specs["defenses"],
        victims=tuple(spec.name for spec in axes.specs["victims"]),
        protocols=axes.protocols,
        seeds=suite.seeds,
        ratios=suite.ratios,
        craft_seed=None if suite.craft_seed == "seed" else suite.craft_seed,
        precision=suite.precision,
    )


def check_values(suite: str, specs: Iterable[tuple[str, Spec]], registry: Registry) -> None:
    """Build each method once, so that invalid values are reported before the run starts.

    Args:
        suite: the name of the suite, for the message.
        specs: kind and full spec of each method.
        registry: knows the methods.

    Raises:
        SuiteError: with every method that refuses its values.
    """
    parts = {(kind, str(part)): (kind, part) for kind, spec in specs for part in spec.parts()}
    _raise_refusals(suite, (partial(registry.build, kind, part) for kind, part in parts.values()))


def check_sets(suite: str, pairs: Iterable[tuple[Spec, DatasetInfo]], registry: Registry) -> None:
    """Ask each attack whether it can protect the data sets of its cells.

    Args:
        suite: the name of the suite, for the message.
        pairs: full specs of attacks, each with a data set that the attack is to protect.
        registry: knows the methods.

    Raises:
        SuiteError: with every attack that refuses a data set.
    """

    def ask(part: Spec, info: DatasetInfo) -> None:
        attack = registry.build("attack", part)
        try:
            attack.check(info)
        except ValueError as error:
            raise ValueError(f'attack "{part}" on {info.name}: {error}') from error

    unique = {(str(part), info): (part, info) for spec, info in pairs for part in spec.parts()}
    _raise_refusals(suite, (partial(ask, part, info) for part, info in unique.values()))


def _raise_refusals(suite: str, attempts: Iterable[Callable[[], object]]) -> None:
    """Make every attempt, then raise a SuiteError with the messages of all ValueErrors."""
    problems: dict[str, None] = {}
    for attempt in attempts:
        try:
            attempt()
        except ValueError as error:
            problems[str(error)] = None
        except KeyboardInterrupt:
            raise
        except BaseException:
            # SystemExit too. The stage calls the same code, so the error makes the plugin's cells
            # fail there, with a traceback.
            continue
    if problems:
        raise SuiteError(suite, list(problems))


def _apply(raw: dict[str, Any], setting: str) -> str | None:
    """Apply one ``--set``, and return the problem with it, or None."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        return (
            f"--set {setting}: expected key=value, "
            "for example --set em.max_rounds=20 or --set protocol.epochs=3"
        )
    owner, dot, parameter = key.rpartition(".")
    try:
        value = parse_value(text)
    except ValueError as error:
        return f"--set {setting}: {error}"
    if not dot:
        if key not in Suite.model_fields:
            hint = did_you_mean(key, sorted(Suite.model_fields))
            return f'--set {setting}: a suite has no "{key}"{hint}'
        if key == "seeds":
            raw[key] = text
        elif isinstance(raw.get(key), (list, tuple)) or key.endswith("s"):
            raw[key] = split_list(text)
        else:
            raw[key] = value
        return None
    section = ("protocol_values",) if owner == "protocol" else ("parameters", owner)
    _put(raw, (*section, parameter), value)
    return None


def _put(table: dict[str, Any], path: Sequence[str], value: Value) -> None:
    """Put a value at a path of nested mappings.

    A value on the way that is not a mapping stays as it is, so that pydantic reports it.
    """
    first, *rest = path
    if not rest:
        table[first] = value
        return
    inner = table.get(first)
    if inner is None or isinstance(inner, Mapping):
        table[first] = copy = dict(inner or {})
        _put(copy, rest, value)


def _problem(item: Any) -> str:
    """The message for one error of pydantic."""
    loc = item["loc"]
    # the last part of a longer path is the type that pydantic tried
    is_value = len(loc) > {"parameters": 3, "protocol_values": 2}.get(loc[0], len(loc))
    parts = loc[:-1] if is_value else loc
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    path = path.removeprefix(".")
    if is_value:
        return (
            f"{path}: {item['input']!r} is a {type(item['input']).__name__}; "
            "expected a number, a text, true, false or none"
        )
    if item["type"] == "extra_forbidden":
        return f'{path}: a suite has no "{path}"{did_you_mean(path, sorted(Suite.model_fields))}'
    if item["type"] in ("missing", "too_short"):
        return f"{path}: missing; name at least one"
    return f"{path}: {str(item['msg']).removeprefix('Value error, ')}"


def without_presets(registry: Registry) -> frozenset[str]:
    """The attacks that have no presets; they can be compared with attacks of any preset."""
    return frozenset(
        name for name, card in registry.cards("attack").items() if preset_of(card.params) is None
    )
