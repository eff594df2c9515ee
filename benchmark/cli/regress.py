"""The commands ``baseline accept`` and ``regress``: what the numbers of a suite should be, and whether they still are."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import (
    Axis,
    ChosenExecutor,
    DataRoot,
    Device,
    Download,
    Executor,
    Plugins,
    Results,
    Seeds,
    Settings,
    Slots,
    SlotsPerGpu,
    SuiteName,
    axes_of,
)
from benchmark.cli.workspace import data_root_of, machine_of, plan_of, registry_of, store_of

if TYPE_CHECKING:
    from benchmark.analysis.cells import CellId
    from benchmark.analysis.findings import Verdict
    from benchmark.planning.plan import Cell as PlannedCell
    from benchmark.planning.plan import Plan
    from benchmark.storage.record import Record
    from benchmark.storage.store import Store

Baselines = Annotated[
    Path, typer.Option(help="folder of accepted records, one file a suite; meant to be committed")
]
BASELINES = Path("results/baselines")

baseline = typer.Typer(
    help="What a suite's numbers should be: see [bold]baseline accept[/bold].", no_args_is_help=True
)


@baseline.command()
def accept(
    suite: SuiteName = "nightly",
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
    baselines: Baselines = BASELINES,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="keep what was accepted before: more nights show smaller changes, more machines allow exact ones",
        ),
    ] = False,
) -> None:
    """Accept a suite's present records as what its numbers should be. Commit the file, and look at its difference first."""
    from benchmark.analysis.baseline import read_baseline, write_baseline
    from benchmark.analysis.cells import is_finished
    from benchmark.running.hardware import choose_device

    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    plan = plan_of(
        suite,
        axes,
        settings,
        registry_of(plugin),
        data_root_of(data_root),
        choose_device(device),
        False,
        errors,
    )
    runs = list(_runs(plan.cells, plan, store_of(results)))
    done = [run for run in runs if is_finished(run)]
    file = baselines / f"{plan.suite.name}.jsonl"
    if not done:
        raise ValueError(
            f"there is nothing to accept: none of the {len(runs)} runs of {plan.suite.name} has finished; run the suite first"
        )
    if len(done) < len(runs):
        errors.print(
            f"{len(runs) - len(done)} of {len(runs)} runs have no result and are not accepted",
            highlight=False,
        )
    number = write_baseline(file, [*(read_baseline(file) if add else []), *done])
    console.print(
        f"{escape(str(file))} holds {number} accepted runs", highlight=False, soft_wrap=True
    )


def regress(
    suite: SuiteName = "nightly",
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
    download: Download = False,
    device: Device = "auto",
    slots: Slots = 0,
    slots_per_gpu: SlotsPerGpu = 1,
    executor: ChosenExecutor = Executor.local,
    baselines: Baselines = BASELINES,
    confirm: Annotated[
        bool,
        typer.Option(
            help="run suspect cells again with other victim seeds before calling them a regression"
        ),
    ] = True,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="look at the last night, or at the accepted runs, once more: nothing need be new",
        ),
    ] = False,
) -> None:
    """Have the numbers of a suite changed? Compares its records with the accepted ones; exit status 1 if a finding matters.

    Run the suite first, with the same options. On the machine of the accepted records everything must be equal to the last bit; elsewhere
    statistics decide. See docs/regress.md.
    """
    from benchmark.analysis.baseline import read_baseline, read_history
    from benchmark.analysis.regression import compare
    from benchmark.cli.workspace import plan_suite
    from benchmark.running.hardware import choose_device
    from benchmark.running.scheduler.run import run_plan

    device, registry, data, store = (
        choose_device(device),
        registry_of(plugin),
        data_root_of(data_root),
        store_of(results),
    )
    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    plan = plan_of(suite, axes, settings, registry, data, device, download, errors)
    folder, file = results / plan.suite.name, baselines / f"{plan.suite.name}.jsonl"
    accepted, tonight = read_baseline(file), list(_runs(plan.cells, plan, store))
    if not accepted:
        raise ValueError(
            f"there is no baseline {file}; run the suite, look at its report, and accept it: run_benchmark.py baseline accept"
        )
    last_night = (
        None
        if again
        else max((night.date for night in read_history(folder / "history.jsonl")), default="")
    )
    verdict = compare(accepted, tonight, last_night=last_night)
    if confirm and verdict.suspects:
        others = _unused_seeds(
            len(plan.suite.seeds), {run.seed for run in (*accepted, *tonight, *store.records())}
        )
        console.print(
            f"{len(verdict.suspects)} suspect cells: running them again with seeds {others}",
            highlight=False,
        )
        other = plan_suite(
            replace(plan.suite, seeds=tuple(others)),
            registry,
            data,
            device,
            download,
            errors,
        )
        cells = [cell for cell in other.cells if _labels(cell) in verdict.suspects]
        needed = {key for cell in cells for key in cell.stages}
        outcome = run_plan(
            [stage for stage in other.stages if stage.key in needed],
            store,
            machine_of(device, data, plugin),
            executor=executor.value,
            slots_per_gpu=slots_per_gpu,
            workers=slots,
            events=folder / "events.jsonl",
        )
        if outcome.interrupted:
            raise typer.Exit(outcome.exit_code)
        verdict = compare(accepted, tonight, list(_runs(cells, other, store)), last_night)
    _show(verdict, accepted, tonight, folder, plan.suite.name)
    raise typer.Exit(1 if verdict.matters else 0)


def _runs(cells: Collection[PlannedCell], plan: Plan, store: Store) -> Iterator[Record]:
    """A record for each of these cells, labelled as the plan labels it: finished, ``failed`` at the last attempt, or ``missing``."""
    from benchmark.planning.jobs import TrainJob

    jobs = {stage.key: stage.job for stage in plan.stages if isinstance(stage.job, TrainJob)}
    for cell in cells:
        known = jobs[cell.key].record(cell.key)
        failure = store.failure(cell.key)
        if failure is None and store.has_record(cell.key):
            yield replace(
                store.record(cell.key),
                dataset=known.dataset,
                protocol=known.protocol,
                attack=known.attack,
                defense=known.defense,
            )
        else:
            status, error = (
                ("missing", "") if failure is None else ("failed", str(failure.get("error", "")))
            )
            yield replace(known, status=status, error=error)


def _labels(cell: PlannedCell) -> CellId:
    from benchmark.analysis.cells import CellId

    return CellId(
        str(cell.dataset),
        cell.victim,
        cell.protocol.name,
        cell.ratio,
        str(cell.attack),
        str(cell.defense),
    )


def _unused_seeds(number: int, used: Collection[int]) -> list[int]:
    """The lowest seeds that nothing was run with, so that a rerun is never a result that was there."""
    return list(islice((seed for seed in count() if seed not in used), number))


def _show(
    verdict: Verdict,
    accepted: Collection[Record],
    tonight: Collection[Record],
    folder: Path,
    suite: str,
) -> None:
    """Prints the verdict and writes its files; the night enters the history once."""
    from benchmark.analysis.baseline import append_night, night_of, read_history
    from benchmark.analysis.cells import accuracies, by_cell
    from benchmark.report.history import history
    from benchmark.report.regression import headline, junit, night_markdown, where
    from benchmark.storage.atomic import publish

    night, nights = night_of(tonight), read_history(folder / "history.jsonl")
    if night.accuracies and night not in nights:
        append_night(folder / "history.jsonl", night)
        nights.append(night)
    known = {cell: list(accuracies(runs).values()) for cell, runs in by_cell(accepted).items()}
    found: dict[CellId | None, list[tuple[str, bool]]] = {}
    for finding in verdict.findings:
        found.setdefault(finding.cell, []).append((finding.kind, finding.matters))
    pictures = history(known, max(record.date for record in accepted), nights, suite, found)
    publish(
        folder / "regress.md",
        night_markdown(
            verdict, suite, {"command": shlex.join(["run_benchmark.py", *sys.argv[1:]])}
        ).encode(),
    )
    publish(folder / "regress.xml", junit(verdict, suite, night.date))
    for ending, content in pictures.items():
        publish(folder / f"history.{ending}", content)

    for finding in verdict.findings:
        colour = "red" if finding.matters else "yellow"
        told = escape(f"{where(finding)}: {finding.message}")
        console.print(
            f"[{colour}]{finding.kind}[/{colour}] {told}", highlight=False, soft_wrap=True
        )
    for note in verdict.notes:
        console.print(escape(f"note: {note}"), style="dim", highlight=False, soft_wrap=True)
    console.print(
        f"[bold]{escape(suite)}[/bold]: {headline(verdict)}", highlight=False, soft_wrap=True
    )
    names = ", ".join(
        ["regress.md", "regress.xml (JUnit)", *(f"history.{ending}" for ending in pictures)]
    )
    console.print(escape(f"written to {folder}: {names}"), highlight=False, soft_wrap=True)
