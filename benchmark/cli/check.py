"""The command ``check``: test a method against the contract of its kind."""

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
    """Check that a method, built-in or third-party, honours the method contract."""
    from benchmark.contract import check_method
    from benchmark.running.crash import saved_text

    workspace = workspace_of(Place(plugin=plugin))
    registry = workspace.registry
    if kind:
        kinds = [kind.value]
    else:
        kinds = [each for each in ("attack", "defense") if name in registry.cards(each)]
    if not kinds:
        for broken in registry.broken:
            if broken.name == name:
                raise ValueError(f'"{name}" cannot be read from {broken.file}: {broken.reason}')
        known = sorted({*registry.cards("attack"), *registry.cards("defense")})
        workspace.tell_broken()
        raise ValueError(f'unknown method "{name}"{did_you_mean(name, known)}')

    failed, traces = 0, []
    for each in kinds:
        console.print(f"[bold]{each} {escape(name)}[/bold]")
        for result in check_method(each, name, registry):
            failed += not result.passed
            mark = "[green]ok[/green]    " if result.passed else "[red]FAILED[/red]"
            console.print(
                f"  {mark} {escape(result.name)}"
                + (f": {escape(result.detail)}" if result.detail else ""),
                highlight=False,
            )
            if result.traceback:
                traces.append(f"{each} {name}, {result.name}\n{result.traceback}")
                _plain(f"         at {result.where}")
    if traces:
        path = saved_text("\n".join(traces), f"check-{name}")
        _plain(f"full tracebacks: {path}")
    console.print(
        f"[red]{failed} checks failed[/red]" if failed else "[green]all checks passed[/green]"
    )
    raise typer.Exit(1 if failed else 0)


def _plain(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
