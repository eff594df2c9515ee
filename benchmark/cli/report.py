"""The command ``report``: write leaderboard, tables and figures of the records in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import (
    OPTIONS,
    Axes,
    Place,
    SuiteName,
    program_of,
    with_options,
    workspace_of,
)

if TYPE_CHECKING:
    from benchmark.analysis.counterparts import Counterparts
    from benchmark.analysis.leaderboard import Summary
    from benchmark.catalogue.registry import Registry
    from benchmark.running.last_run import Selection
    from benchmark.storage.record import Record
    from benchmark.workspace.workspace import Workspace


@with_options("download")
def report(
    context: typer.Context,
    axes: Axes,
    place: Place,
    suite: SuiteName = "quick",
    every: Annotated[
        bool, typer.Option("--all", help="all records of the store, whatever suite they belong to")
    ] = False,
    published: Annotated[
        list[str] | None,
        typer.Option(
            help="a paper whose numbers to put beside ours: bridgepure2025, or "
            "bridgepure2025\\[dataset=cifar10] if our data set has another name; an unknown name "
            "lists those there are; may be given again. Later reports show them too, until none "
            "is given",
            show_default=False,
        ),
    ] = None,
    figures: Annotated[
        bool | None,
        typer.Option(
            "--figures/--no-figures",
            help="draw every cell also of a large table, which takes minutes; later reports do "
            "too, until --no-figures",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write leaderboard, tables and plots from the records that are there. Runs nothing.

    Without axes or settings it shows the cells of the suite's last run, and needs neither data nor
    plugins. Examples: [bold]report quick[/bold], [bold]report --all[/bold],
    [bold]report quick --published bridgepure2025[/bold].
    """
    from benchmark.planning.suite import read_suite
    from benchmark.running.last_run import every_record, last_selection, selection_of

    workspace = workspace_of(place)
    if every:
        shown = _show(
            workspace,
            every_record(workspace.store),
            "all",
            context.obj,
            published,
            figures,
            title="all records",
            mixed=True,
        )
        raise typer.Exit(0 if shown else 1)
    given, name = axes.given(), str(read_suite(suite)[0]["name"])
    selection = None if given or axes.settings else last_selection(workspace.folder(name))
    if selection is None and not workspace.results.is_dir():
        selection = {}  # no need to plan, which may ask for a data set
    elif selection is None:
        checked = workspace.suite(suite, given, axes.settings or (), OPTIONS)
        selection = selection_of(workspace.plan(checked))
    shown = show_selection(workspace, selection, name, context.obj, published, figures)
    raise typer.Exit(0 if shown else 1)


def show_selection(
    workspace: Workspace,
    selection: Selection,
    name: str,
    command: str,
    published: Sequence[str] | None = None,
    figures: bool | None = None,
) -> bool:
    """Show the records of these cells of the suite ``name``, and say how many are missing."""
    from benchmark.running.last_run import other_seeds, records_of

    store = workspace.store
    records = records_of(store, selection)
    if absent := len(selection) - len(records):
        errors.print(f"{absent} of {len(selection)} cells have no result yet", highlight=False)
    if again := sum(store.has_record(key) and store.failure(key) is not None for key in selection):
        errors.print(
            f"[yellow]{again} cells failed when they were computed again;[/yellow] "
            "their earlier results are shown"
        )
    if others := other_seeds(store, records):
        errors.print(
            f"the store has {sum(others.values())} more records of these cells, of other seeds: "
            f"{', '.join(map(str, others))}; name all seeds with --seeds, or use report --all",
            highlight=False,
            soft_wrap=True,
        )
    return _show(workspace, records, name, command, published, figures)


def _show(
    workspace: Workspace,
    records: list[Record],
    name: str,
    command: str,
    published: Sequence[str] | None,
    figures: bool | None,
    title: str = "",
    mixed: bool = False,
) -> bool:
    """Print and write the report of a suite, or of ``all``; return False if there are no records.

    Args:
        workspace: the workspace to work in.
        records: the records to show.
        name: the folder of the report, below the folder of results.
        command: the command line, which the report shows.
        published, figures: the options of these names; None keeps the choice of the last report.
        title: heading of the report; by default its name.
        mixed: as in ``to_table``.
    """
    from benchmark.analysis.leaderboard import Summary
    from benchmark.report.pictures import Pictures
    from benchmark.report.published import agreement
    from benchmark.report.published_cells import titled
    from benchmark.report.terminal import print_leaderboard, say
    from benchmark.report.write import STATE, remembered, write_report

    if not records:
        errors.print(
            f"no results yet; run the suite first: there are no records of it in "
            f"{escape(str(workspace.results))}{workspace.no_folder}",
            highlight=False,
            soft_wrap=True,
        )
        return False
    folder, registry = workspace.folder(name), workspace.registry
    summary = Summary(workspace.table(records, mixed, program_of(command)))
    before, drawn_before = remembered(folder)
    if published is None:
        sources = list(before)
    else:
        sources = [] if list(published) == ["none"] else list(dict.fromkeys(published))
    counterparts = _counterparts(summary, sources, registry, published is None)
    print_leaderboard(summary, console)
    written = write_report(
        summary,
        folder,
        title or folder.name,
        context={"command": command},
        pictures=Pictures(summary, workspace.store),
        norms={name: card.norm for name, card in registry.cards("attack").items()},
        counterparts=counterparts,
        sources=sources,
        every_figure=drawn_before if figures is None else figures,
    )
    for group in counterparts:
        say(
            console,
            f"{titled(group, counterparts)} beside {group.dataset}, {len(group.pairs)} numbers. "
            + " ".join(agreement(group)),
        )
    if published is None and counterparts:
        say(
            console,
            "published numbers are shown since an earlier report was asked for them; "
            "--published none leaves them out",
            "dim",
        )
    if written.overview:
        say(console, written.overview, "yellow")
    if written.left_out:
        left_out = ", ".join(reason.partition(":")[0] for reason in written.left_out)
        say(
            console,
            f"figures left out for lack of data: {left_out}; {written.folder / STATE} says what "
            "each needs",
            "dim",
        )
    more = f"{len(written.files) - 1} more files beside it"
    console.print(
        f"report: {escape(str(written.html))} and {more}", highlight=False, soft_wrap=True
    )
    return True


def _counterparts(
    summary: Summary, sources: Sequence[str], registry: Registry, earlier: bool
) -> list[Counterparts]:
    """The published numbers of ``sources``, each of their data sets once for each group.

    Args:
        summary: summary of the long table.
        sources: as in ``--published``.
        registry: knows the methods.
        earlier: whether the sources come from an earlier report. Then sources that cannot be shown
            are named and left out; otherwise they are an error.
    """
    from benchmark.analysis.counterparts import find_counterparts
    from benchmark.analysis.published import load_published
    from benchmark.report.published_cells import Where, where_of

    if not sources:
        return []
    unique: dict[tuple[str, str, Where], Counterparts] = {}
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    try:
        rows = load_published()
    except (FileNotFoundError, ValueError) as error:
        if not earlier:
            raise
        _tell_left_out(error)
        return []
    for source in sources:
        try:
            for group in find_counterparts(summary, rows, source, cards):
                dataset = group.pairs[0].published.dataset
                unique.setdefault((group.source, dataset, where_of(group)), group)
        except ValueError as error:
            if not earlier:
                raise
            _tell_left_out(error)
    return list(unique.values())


def _tell_left_out(error: Exception) -> None:
    errors.print(
        f"[yellow]published numbers are left out:[/yellow] {escape(str(error))}",
        highlight=False,
        soft_wrap=True,
    )
