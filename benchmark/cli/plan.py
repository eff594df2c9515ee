"""The command ``plan``: show the cells of a suite, their state and their cost; run nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console
from benchmark.cli.options import OPTIONS, Axes, Place, SuiteName, with_options, workspace_of

if TYPE_CHECKING:
    from benchmark.planning.plan import Cell, Plan
    from benchmark.storage.store import Store

EXPLAINED = {
    "cached": "cached",
    "new": "would run: nothing like it in the store",
    "differs": "would run: unlike the nearest result, {nearest}, in",
}
Explain = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="CELL",
        help="say why a cell would run and what differs from the nearest result in the store: "
        '"em + dvae", or "em + dvae, seed 1"; more axes may follow, such as a victim or ratio 0.5',
        show_default=False,
    ),
]


@with_options()
def plan(axes: Axes, place: Place, suite: SuiteName = "quick", explain: Explain = None) -> None:
    """Show a suite's cells: cached, skipped and why, and what the rest will cost. Runs nothing.

    Values that a method refuses, such as eps=8, are reported by run before it starts.
    With --explain "em + dvae", says instead why that cell would run.
    """
    from benchmark.planning.explain import find_cells
    from benchmark.running.scheduler.outcome import default_slots

    workspace = workspace_of(place)
    made = workspace.plan(workspace.suite(suite, axes.given(), axes.settings or (), OPTIONS))
    if explain is not None:
        print_reasons(made, find_cells(made, explain), workspace.store, console)
        return
    print_plan(made, workspace.store, len(default_slots(workspace.device)), console)


def print_plan(plan: Plan, store: Store, slots: int, console: Console) -> None:
    """Print the cells with their state, what was skipped and why, and the cost of the rest.

    The cost is an estimate for ``slots`` workers.
    """
    stages = {stage.key: stage for stage in plan.stages}
    done = {key for key, stage in stages.items() if store.is_done(stage)}
    points = {cell.key: cell.axes() for cell in plan.cells}
    first = next(iter(points.values()), {})
    varying = [
        name
        for name in first
        if name in ("attack", "defense") or len({point[name] for point in points.values()}) > 1
    ]
    constant = [text for name, text in first.items() if name not in varying]
    console.print(
        escape(" / ".join([plan.suite.name, *constant])),
        style="italic",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD)
    for header in (*varying, "state", "stages to do"):
        table.add_column(header, overflow="fold")
    for cell in plan.cells:
        to_do: list[str] = []
        if cell.key in done:
            state = "[green]cached[/green]"
        else:
            state = "[red]failed before[/red]" if store.failure(cell.key) else "to do"
            to_do = [stages[key].kind for key in cell.stages if key not in done]
        table.add_row(
            *(escape(points[cell.key][name]) for name in varying), state, ", ".join(to_do) or "-"
        )
    console.print(table)
    for skip in plan.skips:
        console.print(f"skipped {escape(skip.what)}: {escape(skip.reason)}", highlight=False)
    console.print(_cost(plan, store, done, slots), highlight=False)


def print_reasons(plan: Plan, cells: Sequence[Cell], store: Store, console: Console) -> None:
    """Print why each of these cells would run, stage by stage."""
    from benchmark.planning.explain import explain, known_artifact, known_record

    stages = {stage.key: stage for stage in plan.stages}
    done = {key for cell in cells for key in cell.stages if store.is_done(stages[key])}
    known = [known_record(record) for record in store.records()]
    artifacts = (known_artifact(key, manifest) for key, manifest in store.manifests())
    known += [artifact for artifact in artifacts if artifact is not None]
    for cell in cells:
        console.print(f"[bold]{escape(str(cell))}[/bold]", highlight=False, soft_wrap=True)
        for reason in explain(cell, stages, done, known):
            text = EXPLAINED[reason.state].format(nearest=reason.nearest)
            for line in (f"  {reason.label}: {text}", *(f"    {x}" for x in reason.differences)):
                console.print(escape(line), highlight=False, soft_wrap=True)
        if (failure := store.failure(cell.key)) is not None and cell.key not in done:
            line = f"  failed at its last attempt: {failure.get('error', '')}"
            console.print(escape(line), style="red", highlight=False, soft_wrap=True)


def _cost(plan: Plan, store: Store, done: set[str], slots: int) -> str:
    """Say how much is left to do, as a multiple of one undefended training.

    If this store has timed trainings, the text gives minutes too.
    """
    needed = {
        key for cell in plan.cells if cell.key not in done for key in cell.stages if key not in done
    }
    left = sum(stage.cost for stage in plan.stages if stage.key in needed)
    unit = min((stage.cost for stage in plan.stages if stage.kind == "train"), default=1.0)
    trained = [stage for stage in plan.stages if stage.kind == "train" and stage.key in done]
    timed = [(store.record(stage.key).seconds["train"], stage.cost) for stage in trained]
    cells = sum(cell.key not in done for cell in plan.cells)
    text = f"{cells} cells to do, about {left / unit:.0f} times one undefended training"
    if timed and left:
        seconds = left * sum(second for second, _ in timed) / sum(cost for _, cost in timed) / slots
        text += f"; about {seconds / 60:.0f} min on {slots} slots, by the timings of this store"
    return text
