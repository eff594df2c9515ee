"""The commands ``regress`` and ``baseline accept``: find out whether a suite's numbers changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import OPTIONS, Axes, Place, SuiteName, Work, with_options, workspace_of

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
@with_options("download")
def accept(
    axes: Axes,
    place: Place,
    suite: SuiteName = "nightly",
    baselines: Baselines = BASELINES,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="keep what was accepted before: more nights show smaller changes, more machines "
            "allow exact ones",
        ),
    ] = False,
) -> None:
    """Accept a suite's present records as what its numbers should be.

    Look at the difference of the file before you commit it.
    """
    from benchmark.analysis.baseline import read_baseline, write_baseline
    from benchmark.analysis.cells import is_finished

    workspace = workspace_of(place)
    plan = workspace.plan(workspace.suite(suite, axes.given(), axes.settings or (), OPTIONS))
    runs = list(_runs(plan.cells, plan, workspace.store))
    done = [run for run in runs if is_finished(run)]
    file = baselines / f"{plan.suite.name}.jsonl"
    if not done:
        raise ValueError(
            f"there is nothing to accept: none of the {len(runs)} runs of {plan.suite.name} has "
            f"finished; run the suite first (results are in {place.results}{workspace.no_folder})"
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


@with_options("policy")
def regress(
    context: typer.Context,
    axes: Axes,
    place: Place,
    work: Work,
    suite: SuiteName = "nightly",
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
    """Have the numbers of a suite changed? Exit status 1 if a finding matters.

    Compares the suite's records with the accepted ones; run the suite first, with the same options.
    On the machine of the accepted records everything must be equal to the last bit; elsewhere
    statistics decide. See docs/regress.md.
    """
    from benchmark.analysis.baseline import read_baseline, read_history
    from benchmark.analysis.regression import compare

    workspace = workspace_of(place, work)
    plan = workspace.plan(workspace.suite(suite, axes.given(), axes.settings or (), OPTIONS))
    store, folder = workspace.store, workspace.folder(plan.suite.name)
    file = baselines / f"{plan.suite.name}.jsonl"
    accepted, tonight = read_baseline(file), list(_runs(plan.cells, plan, store))
    if not accepted:
        raise ValueError(
            f"there is no baseline {file}; run the suite, look at its report, and accept it: "
            f"{context.find_root().info_name} baseline accept"
        )
    if workspace.no_folder:
        raise ValueError(f"there is nothing to look at in {place.results}{workspace.no_folder}")
    last_night = None
    if not again:
        nights = read_history(folder / "history.jsonl")
        last_night = max((night.date for night in nights), default="")
    verdict = compare(accepted, tonight, last_night=last_night)
    if confirm and verdict.suspects:
        others = _unused_seeds(
            len(plan.suite.seeds), {run.seed for run in (*accepted, *tonight, *store.records())}
        )
        console.print(
            f"{len(verdict.suspects)} suspect cells: running them again with seeds {others}",
            highlight=False,
        )
        other = workspace.plan(replace(plan.suite, seeds=tuple(others)))
        cells = [cell for cell in other.cells if _labels(cell) in verdict.suspects]
        needed = {key for cell in cells for key in cell.stages}
        stages = [stage for stage in other.stages if stage.key in needed]
        outcome = workspace.run(stages, folder / "events.jsonl")
        if outcome.interrupted:
            raise typer.Exit(outcome.exit_code)
        verdict = compare(accepted, tonight, list(_runs(cells, other, store)), last_night)
    _show(verdict, accepted, tonight, folder, plan.suite.name, context.obj)
    raise typer.Exit(1 if verdict.matters else 0)


def _runs(cells: Collection[PlannedCell], plan: Plan, store: Store) -> Iterator[Record]:
    """Yield a record for each of these cells, with the labels of the plan.

    A cell that failed at the last attempt has the status ``failed``, and one that was never
    computed the status ``missing``.
    """
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
            status, error = "missing", ""
            if failure is not None:
                status, error = "failed", str(failure.get("error", ""))
            yield replace(known, status=status, error=error)


def _labels(cell: PlannedCell) -> CellId:
    from benchmark.analysis.cells import CellId

    group = str(cell.dataset), cell.victim, cell.protocol.name, cell.ratio
    return CellId(*group, str(cell.attack), str(cell.defense))


def _unused_seeds(number: int, used: Collection[int]) -> list[int]:
    """The lowest ``number`` seeds that are not in use, so that a rerun computes something new."""
    return list(islice((seed for seed in count() if seed not in used), number))


def _show(
    verdict: Verdict,
    accepted: Collection[Record],
    tonight: Collection[Record],
    folder: Path,
    suite: str,
    command: str,
) -> None:
    """Print the verdict, write its files, and add the night to the history unless it is there."""
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
    findings: dict[CellId | None, list[tuple[str, bool]]] = {}
    for finding in verdict.findings:
        findings.setdefault(finding.cell, []).append((finding.kind, finding.matters))
    pictures = history(known, max(record.date for record in accepted), nights, suite, findings)
    publish(
        folder / "regress.md",
        night_markdown(verdict, suite, {"command": command}).encode(),
    )
    publish(folder / "regress.xml", junit(verdict, suite, night.date))
    for ending, content in pictures.items():
        publish(folder / f"history.{ending}", content)

    for finding in verdict.findings:
        colour = "red" if finding.matters else "yellow"
        message = escape(f"{where(finding)}: {finding.message}")
        console.print(
            f"[{colour}]{finding.kind}[/{colour}] {message}", highlight=False, soft_wrap=True
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
