"""The command ``report``: leaderboard, tables and figures of the records that are there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import (
    Axis,
    DataRoot,
    Device,
    Every,
    Figures,
    Plugins,
    Published,
    Results,
    Seeds,
    Settings,
    SuiteName,
    axes_of,
)
from benchmark.cli.workspace import data_root_of, plan_of, registry_of, store_of

if TYPE_CHECKING:
    from benchmark.analysis.counterparts import Counterparts
    from benchmark.analysis.leaderboard import Summary
    from benchmark.catalogue.registry import Registry
    from benchmark.running.last_run import Selection
    from benchmark.storage.record import Record
    from benchmark.storage.store import Store


def report(
    suite: SuiteName = "quick",
    attacks: Axis = None,
    defenses: Axis = None,
    dataset: Axis = None,
    victim: Axis = None,
    protocol: Axis = None,
    seeds: Seeds = None,
    settings: Settings = None,
    plugin: Plugins = None,
    results: Results = Path("results"),
    data_root: DataRoot = None,
    device: Device = "auto",
    every: Every = False,
    published: Published = None,
    figures: Figures = None,
) -> None:
    """Write leaderboard, tables and plots from the records that are there. Runs nothing.

    Without axes or settings it shows the cells of the suite's last run, and needs neither data nor plugins.
    """
    from benchmark.planning.suite import read_suite
    from benchmark.running.hardware import choose_device
    from benchmark.running.last_run import every_record, last_selection, selection_of

    store = store_of(results)
    if every:
        shown = _show(
            every_record(store),
            store,
            results / "all",
            "all records",
            registry_of(plugin),
            published,
            figures,
            mixed=True,
        )
        raise typer.Exit(0 if shown else 1)
    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    folder = results / str(read_suite(suite)[0]["name"])
    selection = None if axes or settings else last_selection(folder)
    if selection is None:
        made = plan_of(
            suite,
            axes,
            settings,
            registry_of(plugin),
            data_root_of(data_root),
            choose_device(device),
            False,
            errors,
        )
        selection = selection_of(made)
    raise typer.Exit(
        0
        if show_selection(selection, store, folder, registry_of(plugin), published, figures)
        else 1
    )


def show_selection(
    selection: Selection,
    store: Store,
    folder: Path,
    registry: Registry,
    published: Sequence[str] | None = None,
    figures: bool | None = None,
) -> bool:
    """Shows the records of these cells, and says which of them are missing."""
    from benchmark.running.last_run import records_of

    records = records_of(store, selection)
    if absent := len(selection) - len(records):
        errors.print(f"{absent} of {len(selection)} cells have no result yet", highlight=False)
    if again := sum(store.has_record(key) and store.failure(key) is not None for key in selection):
        errors.print(
            f"[yellow]{again} cells failed when they were computed again;[/yellow] their earlier results are shown"
        )
    return _show(records, store, folder, folder.name, registry, published, figures)


def _show(
    records: list[Record],
    store: Store,
    folder: Path,
    title: str,
    registry: Registry,
    published: Sequence[str] | None,
    figures: bool | None,
    mixed: bool = False,
) -> bool:
    """Prints and writes the report. ``published`` and ``figures`` are None where the choice of the last report stands."""
    from benchmark.analysis.leaderboard import Summary
    from benchmark.analysis.table import to_table
    from benchmark.planning.suite import without_presets
    from benchmark.report.pictures import Pictures
    from benchmark.report.published import agreement
    from benchmark.report.published_cells import titled
    from benchmark.report.terminal import print_leaderboard, say
    from benchmark.report.write import STATE, remembered, write_report

    if not records:
        errors.print("no results yet; run the suite first")
        return False
    summary = Summary(to_table(records, without_presets=without_presets(registry), mixed=mixed))
    before, drawn_before = remembered(folder)
    sources = (
        before
        if published is None
        else []
        if list(published) == ["none"]
        else list(dict.fromkeys(published))
    )
    counterparts = _counterparts(summary, sources, registry, published is None)
    print_leaderboard(summary, console)
    written = write_report(
        summary,
        folder,
        title,
        context={"command": shlex.join(["run_benchmark.py", *sys.argv[1:]])},
        pictures=Pictures(summary, store),
        norms={name: card.norm for name, card in registry.cards("attack").items()},
        counterparts=counterparts,
        sources=sources,
        every_figure=drawn_before if figures is None else figures,
    )
    for one in counterparts:
        say(
            console,
            f"{titled(one, counterparts)} beside {one.dataset}, {len(one.pairs)} numbers. {' '.join(agreement(one))}",
        )
    if published is None and counterparts:
        say(
            console,
            "published numbers are shown since an earlier report was asked for them; --published none leaves them out",
            "dim",
        )
    if written.overview:
        say(console, written.overview, "yellow")
    if written.left_out:
        left_out = ", ".join(reason.partition(":")[0] for reason in written.left_out)
        say(
            console,
            f"figures left out for lack of data: {left_out}; {written.folder / STATE} says what each needs",
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
    """The published numbers of ``sources``, those of one data set beside one group once, whatever they were asked for by.

    Sources that an ``earlier`` report asked for hinder no report: what cannot be shown of them is told and left out.
    """
    from benchmark.analysis.counterparts import find_counterparts
    from benchmark.analysis.published import load_published
    from benchmark.report.published_cells import Where, where_of

    if not sources:
        return []
    found: dict[tuple[str, str, Where], Counterparts] = {}
    try:
        rows = load_published()
    except (FileNotFoundError, ValueError) as error:
        if not earlier:
            raise
        _tell_left_out(error)
        return []
    for source in sources:
        try:
            for one in find_counterparts(
                summary,
                rows,
                source,
                {kind: registry.cards(kind) for kind in ("attack", "defense")},
            ):
                found.setdefault((one.source, one.pairs[0].published.dataset, where_of(one)), one)
        except ValueError as error:
            if not earlier:
                raise
            _tell_left_out(error)
    return list(found.values())


def _tell_left_out(error: Exception) -> None:

    errors.print(
        f"[yellow]published numbers are left out:[/yellow] {escape(str(error))}",
        highlight=False,
        soft_wrap=True,
    )
