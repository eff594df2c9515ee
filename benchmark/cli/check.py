"""The command ``check``: tests a method against the contract of its kind."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from benchmark.catalogue.spec import did_you_mean
from benchmark.cli.console import console
from benchmark.cli.options import Kind, Place, Plugins, with_options, workspace_of


@with_options()
def check(
    name: Annotated[str, typer.Argument(help="an attack or a defense")],
    kind: Annotated[
        Kind | None,
        typer.Option(help="needed where an attack and a defense share a name", show_default=False),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Test one method, also a stranger's, against the promises that every method makes."""
    from benchmark.contract import check_method

    workspace = workspace_of(Place(plugin=plugin))
    registry = workspace.registry
    kinds = (
        [kind.value]
        if kind
        else [one for one in ("attack", "defense") if name in registry.cards(one)]
    )
    if not kinds:
        known = sorted({*registry.cards("attack"), *registry.cards("defense")})
        workspace.tell_broken()
        raise ValueError(f'unknown method "{name}"{did_you_mean(name, known)}')

    failed = 0
    for one in kinds:
        console.print(f"[bold]{one} {escape(name)}[/bold]")
        for result in check_method(one, name, registry):
            failed += not result.passed
            mark = "[green]ok[/green]    " if result.passed else "[red]FAILED[/red]"
            console.print(
                f"  {mark} {escape(result.name)}"
                + (f": {escape(result.detail)}" if result.detail else ""),
                highlight=False,
            )
    console.print(
        f"[red]{failed} checks failed[/red]" if failed else "[green]all checks passed[/green]"
    )
    raise typer.Exit(1 if failed else 0)
