"""The command ``plan``: shows the cells of a suite, their state and their cost. Runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.cli.console import console
from benchmark.cli.options import OPTIONS, Axes, Place, SuiteName, with_options, workspace_of

if TYPE_CHECKING:
    from benchmark.planning.plan import Cell, Plan
    from benchmark.storage.store import Store


@with_options()
def plan(axes: Axes, place: Place, suite: SuiteName = "quick") -> None:
    """Show a suite's cells: cached, skipped and why, and what the rest will cost. Runs nothing.

    Values that a method refuses, such as eps=8, are reported by run before it starts.
    """
    from benchmark.running.scheduler.outcome import default_slots

    workspace = workspace_of(place)
    made = workspace.plan(workspace.suite(suite, axes.given(), axes.settings or (), OPTIONS))
    print_plan(made, workspace.store, len(default_slots(workspace.device)), console)


def print_plan(plan: Plan, store: Store, slots: int, console: Console) -> None:
    """Prints the cells of a plan with their state, the skips, and the cost on ``slots`` slots."""
    stages = {stage.key: stage for stage in plan.stages}
    done = {key for key, stage in stages.items() if store.is_done(stage)}
    points = {cell.key: _point(cell) for cell in plan.cells}
    varying = [
        name
        for name in (next(iter(points.values())) if points else ())
        if name in ("attack", "defense") or len({point[name] for point in points.values()}) > 1
    ]
    constant = (
        [text for name, text in next(iter(points.values())).items() if name not in varying]
        if points
        else []
    )
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
        to_do = (
            [] if cell.key in done else [stages[key].kind for key in cell.stages if key not in done]
        )
        state = (
            "[green]cached[/green]"
            if cell.key in done
            else "[red]failed before[/red]"
            if store.failure(cell.key)
            else "to do"
        )
        table.add_row(
            *(escape(points[cell.key][name]) for name in varying), state, ", ".join(to_do) or "-"
        )
    console.print(table)
    for skip in plan.skips:
        console.print(f"skipped {escape(skip.what)}: {escape(skip.reason)}", highlight=False)
    console.print(_cost(plan, store, done, slots), highlight=False)


def _point(cell: Cell) -> dict[str, str]:
    """The axes of a cell as people read them."""
    return {
        "dataset": str(cell.dataset),
        "victim": cell.victim,
        "protocol": cell.protocol.name,
        "ratio": f"ratio {cell.ratio:g}",
        "seed": f"seed {cell.seed}",
        "attack": str(cell.attack),
        "defense": str(cell.defense),
    }


def _cost(plan: Plan, store: Store, done: set[str], slots: int) -> str:
    """What is left to do: in trainings of one undefended victim, and in minutes if any is timed."""
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
