"""The command ``list``: show methods, protocols and suites, without importing a method."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.catalogue.card import Param
from benchmark.catalogue.protocol import PROTOCOLS, get_protocol
from benchmark.cli.console import console
from benchmark.cli.options import Place, Plugins, What, with_options, workspace_of

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry


@with_options()
def list_(
    what: Annotated[What, typer.Argument(help="what to list")],
    name: Annotated[
        str | None, typer.Argument(help="only this one, in full", show_default=False)
    ] = None,
    plugin: Plugins = None,
) -> None:
    """List methods with parameters, defaults and citation; or protocols, or suites."""
    if what is What.protocols:
        list_protocols(name, console)
    elif what is What.suites:
        list_suites(name, console)
    else:
        workspace = workspace_of(Place(plugin=plugin))
        list_methods(what.value.removesuffix("s"), name, workspace.registry, console)
        workspace.tell_broken()


def list_protocols(name: str | None, console: Console) -> None:
    """Print all protocols, or the one called ``name``, with every setting."""
    for protocol in [get_protocol(name)] if name else PROTOCOLS.values():
        values = ", ".join(
            f"{item.name}={getattr(protocol, item.name)}"
            for item in fields(protocol)
            if item.name not in ("name", "summary")
        )
        console.print(
            f"[bold]{protocol.name}[/bold]  {escape(protocol.summary)}\n"
            f"    [dim]{escape(values)}[/dim]",
            highlight=False,
        )


def list_suites(only: str | None, console: Console) -> None:
    """Print all shipped suites, or the one called ``only``, with axes and files."""
    # imported here, since it loads pydantic, which the other lists do not need
    from benchmark.planning.suite import read_suite, suite_names

    for name in [only] if only else suite_names():
        raw, where = read_suite(name)
        axes = ", ".join(
            f"{key}: {raw[key]}"
            for key in ("datasets", "attacks", "defenses", "victims", "protocols")
            if key in raw
        )
        console.print(
            f"[bold]{name}[/bold]  {escape(str(raw.get('about', '')))}\n"
            f"    [dim]{escape(axes)}\n"
            f"    {escape(where)}[/dim]",
            highlight=False,
        )


def list_methods(kind: str, name: str | None, registry: Registry, console: Console) -> None:
    """Print all methods of a kind, or the one called ``name``: citation, parameters, defaults."""
    cards = registry.cards(kind)
    shown = [registry.card(kind, name)] if name else list(cards.values())
    for card in shown:
        about = [
            card.cite,
            f"norm {card.norm}" if card.norm else "",
            f"version {card.version}" if card.cite else "",
            f"needs {', '.join(card.needs)}" if card.needs else "",
        ]
        console.print(
            f"[bold]{escape(card.name)}[/bold]  {escape(card.summary)}  "
            f"[dim]{escape('; '.join(filter(None, about)))}[/dim]",
            highlight=False,
        )
        for param in card.params.values():
            console.print(
                f"    {escape(_declared(param))}  [dim]{escape(param.doc)}[/dim]", highlight=False
            )


def _declared(param: Param) -> str:
    """Name, type or choices, default and range: ``eps: float = 8 / 255, 0 < eps <= 1``."""
    default = "(required)" if param.required else f"= {param.shown}"
    limits = param.limits.shown(param.name)
    if param.limits.choices:
        return f"{param.name}: {limits} {default}"
    return f"{param.name}: {param.type} {default}" + (f", {limits}" if limits else "")
