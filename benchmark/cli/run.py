"""The command ``run``: compute the missing cells of a suite, and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from benchmark.cli.console import console
from benchmark.cli.options import OPTIONS, Axes, Place, SuiteName, Work, with_options, workspace_of
from benchmark.cli.report import show_selection

if TYPE_CHECKING:
    from benchmark.planning.plan import Plan


@with_options()
def run(
    context: typer.Context, axes: Axes, place: Place, work: Work, suite: SuiteName = "quick"
) -> None:
    """Run a suite and report. Running the same command again continues where it stopped.

    Examples: [bold]run quick --seeds 0-2[/bold], [bold]run mine.yaml --defenses none,dvae[/bold],
    [bold]run quick --plugin mydefense.py --defenses none,mydefense[/bold].
    """
    from benchmark.running.last_run import selection_of

    workspace = workspace_of(place, work)
    plan = workspace.plan(workspace.suite(suite, axes.given(), axes.settings or (), OPTIONS))
    workspace.check(plan)
    console.print(_announced(plan), highlight=False)
    outcome = workspace.run_suite(plan)
    show_selection(workspace, selection_of(plan), plan.suite.name, context.obj)
    raise typer.Exit(outcome.exit_code)


def _announced(plan: Plan) -> str:
    skipped = f", {len(plan.skips)} combinations skipped (`plan` says why)" if plan.skips else ""
    name = escape(plan.suite.name)
    return f"[bold]{name}[/bold]: {len(plan.cells)} cells in {len(plan.stages)} stages{skipped}"
