"""The options of the commands; options that several commands share are fields of dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from benchmark.catalogue.spec import parse_seeds, split_list
from benchmark.cli.console import errors
from benchmark.workspace.workspace import Workspace


class Policy(StrEnum):
    """What to do about results that are in the store already."""

    missing = "missing"
    force = "force"
    collect = "collect"


class Executor(StrEnum):
    """Which processes do the work."""

    local = "local"
    inline = "inline"


class What(StrEnum):
    """What can be listed."""

    attacks = "attacks"
    defenses = "defenses"
    victims = "victims"
    datasets = "datasets"
    protocols = "protocols"
    suites = "suites"


class Kind(StrEnum):
    """Kinds of methods that ``check`` knows."""

    attack = "attack"
    defense = "defense"


class Format(StrEnum):
    """Forms in which ``poison`` and ``purify`` write."""

    png = "png"
    npz = "npz"
    pt = "pt"


SuiteName = Annotated[
    str, typer.Argument(help="a shipped suite (see `list suites`) or the path of a YAML file")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="a Python file with a method of yours; may be given again",
        show_default=False,
    ),
]
Results = Annotated[
    Path, typer.Option("--results", help="folder of results: the store and one folder a suite")
]
ChosenPolicy = Annotated[
    Policy,
    typer.Option(
        help="missing: compute what is not there; force: all of it again; "
        "collect: nothing, only report"
    ),
]
Axis = Annotated[
    str | None, typer.Option(help="comma-separated; replaces the suite's own", show_default=False)
]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Values that replace those of a suite."""

    attacks: Axis = None
    defenses: Axis = None
    dataset: Axis = None
    victim: Axis = None
    protocol: Axis = None
    seeds: Annotated[
        str | None,
        typer.Option(help="victims' seeds, such as 0,1,2 or 0-4", show_default=False),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value: em.max_rounds=20, protocol.epochs=3, precision=fp32; "
            "may be given again",
            show_default=False,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """The axes that the user gave, in the form of ``load_suite``.

        Raises:
            ValueError: if the seeds cannot be read.
        """
        texts = {axis: getattr(self, OPTIONS[axis].removeprefix("--")) for axis in OPTIONS}
        seeds = texts.pop("seeds")
        axes: dict[str, Any] = {
            axis: split_list(text) for axis, text in texts.items() if text is not None
        }
        if seeds is not None:
            try:
                axes["seeds"] = parse_seeds(seeds)
            except ValueError as error:
                raise ValueError(f"--seeds: {error}") from error
        return axes


# axis of a suite -> its option
OPTIONS = {
    "attacks": "--attacks",
    "defenses": "--defenses",
    "datasets": "--dataset",
    "victims": "--victim",
    "protocols": "--protocol",
    "seeds": "--seeds",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a command finds methods, results and data, and on which device it computes."""

    plugin: Plugins = None
    results: Results = Path("results")
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="folder of data sets; default $UEBENCH_DATA or the user's cache",
            show_default=False,
        ),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="fetch a data set that is not there")
    ] = False
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0")] = "auto"


@dataclass(frozen=True, kw_only=True)
class Work:
    """How stages run."""

    slots: Annotated[
        int, typer.Option(help="workers; 0 means one a CPU core, or one a GPU share", min=0)
    ] = 0
    slots_per_gpu: Annotated[int, typer.Option(help="workers that share one GPU", min=1)] = 1
    executor: Annotated[
        Executor,
        typer.Option(help="local: worker processes; inline: in this process, one after another"),
    ] = Executor.local
    policy: ChosenPolicy = Policy.missing


def workspace_of(place: Place, work: Work | None = None) -> Workspace:
    """The workspace that the options of a command describe; its messages go to standard error."""
    work = work or Work()
    return Workspace(
        plugins=tuple(place.plugin or ()),
        results=place.results,
        data_root=place.data_root,
        download=place.download,
        wanted_device=place.device,
        slots=work.slots,
        slots_per_gpu=work.slots_per_gpu,
        executor=work.executor.value,
        policy=work.policy.value,
        console=errors,
    )


def program_of(command: str) -> str:
    """The words that start uebench, from the command line that the user typed.

    Args:
        command: such as ``uebench run quick``, or ``run_benchmark.py run quick`` in a clone.
    """
    first = command.partition(" ")[0]
    return f"python {first}" if first.endswith(".py") else first


def with_options(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of the dataclasses among its parameters.

    typer makes one option of each parameter. It sees a function that has every field as a
    parameter, which builds the dataclasses and calls the command with them.

    Args:
        left_out: fields that this command does not offer; they keep their defaults.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        hints.pop("return", None)
        groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        shown: list[Parameter] = []
        owner: dict[str, str] = {}  # option -> the parameter whose dataclass has it
        for parameter in signature(command).parameters.values():
            name = parameter.name
            if name in groups:
                inner = get_type_hints(groups[name], include_extras=True)
                for item in fields(groups[name]):
                    if item.name not in left_out:
                        owner[item.name] = name
                        default = Parameter.empty if item.default is MISSING else item.default
                        shown.append(_option(item.name, inner[item.name], default))
            else:
                shown.append(_option(name, hints[name], parameter.default))

        def called(**given: Any) -> None:
            parts: dict[str, dict[str, Any]] = {name: {} for name in groups}
            plain: dict[str, Any] = {}
            for name, value in given.items():
                (parts[owner[name]] if name in owner else plain)[name] = value
            command(**plain, **{name: groups[name](**part) for name, part in parts.items()})

        called.__name__, called.__doc__ = command.__name__, _unwrapped(command.__doc__)
        called.__module__ = command.__module__
        called.__annotations__ = {option.name: option.annotation for option in shown}
        called.__signature__ = Signature(shown)  # type: ignore[attr-defined]
        return called

    return wrap


def _option(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _unwrapped(text: str | None) -> str | None:
    """Put each paragraph on one line, which typer breaks at the width of the terminal."""
    return text and "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
