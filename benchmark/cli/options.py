"""What the commands share: their options, and the objects that options stand for. Heavy imports happen inside the functions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.catalogue.spec import parse_seeds, split_list

if TYPE_CHECKING:
    pass


class Policy(StrEnum):
    """What to do about results that are there."""

    missing = "missing"
    force = "force"
    collect = "collect"


class Executor(StrEnum):
    """Who does the work."""

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

Axis = Annotated[
    str | None, typer.Option(help="comma-separated; replaces the suite's own", show_default=False)
]

Seeds = Annotated[
    str | None, typer.Option(help="victims' seeds, such as 0,1,2 or 0-4", show_default=False)
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value: em.max_rounds=20, protocol.epochs=3, precision=fp32; may be given again",
        show_default=False,
    ),
]

DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="folder of data sets; default $UEBENCH_DATA or the user's cache", show_default=False
    ),
]

Results = Annotated[
    Path, typer.Option("--results", help="folder of results: the store and one folder a suite")
]

Every = Annotated[
    bool, typer.Option("--all", help="all records of the store, whatever suite they belong to")
]

Published = Annotated[
    list[str] | None,
    typer.Option(
        help="a paper whose numbers to put beside ours: bridgepure2025, or bridgepure2025\\[dataset=cifar10] if our data set has "
        "another name; results/published.md lists them; may be given again. Later reports show them too, until none is given",
        show_default=False,
    ),
]

Figures = Annotated[
    bool | None,
    typer.Option(
        "--figures/--no-figures",
        help="draw every cell also of a large table, which takes minutes; later reports do too, until --no-figures",
        show_default=False,
    ),
]

Download = Annotated[bool, typer.Option("--download", help="fetch a data set that is not there")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0")]

Slots = Annotated[
    int, typer.Option(help="workers; 0 means one a CPU core, or one a GPU share", min=0)
]

SlotsPerGpu = Annotated[int, typer.Option(help="workers that share one GPU", min=1)]

ChosenExecutor = Annotated[
    Executor,
    typer.Option(help="local: worker processes; inline: in this process, one after another"),
]

ChosenPolicy = Annotated[
    Policy,
    typer.Option(
        help="missing: compute what is not there; force: all of it again; collect: nothing, only report"
    ),
]


def axes_of(
    attacks: str | None,
    defenses: str | None,
    dataset: str | None,
    victim: str | None,
    protocol: str | None,
    seeds: str | None,
) -> dict[str, Any]:
    """The axes that were given, as ``load_suite`` takes them."""
    texts = {
        "attacks": attacks,
        "defenses": defenses,
        "datasets": dataset,
        "victims": victim,
        "protocols": protocol,
    }
    axes: dict[str, Any] = {
        name: split_list(text) for name, text in texts.items() if text is not None
    }
    if seeds is not None:
        axes["seeds"] = parse_seeds(seeds)
    return axes
