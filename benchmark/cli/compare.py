"""The command ``compare``: compare a defense with a reference on the attacks of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import OPTIONS, Axes, Place, Work, with_options, workspace_of

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.comparison import Comparison


@with_options("defenses")
def compare(
    context: typer.Context,
    defense: Annotated[str, typer.Argument(help="yours, such as mydefense or jpeg\\[quality=30]")],
    against: Annotated[
        str, typer.Option("--against", help="the defense to compare it with", show_default=False)
    ],
    axes: Axes,
    place: Place,
    work: Work,
    suite: Annotated[
        str,
        typer.Option(
            "--suite", help="whose attacks, data and victims: a shipped suite or a YAML file"
        ),
    ] = "quick",
) -> None:
    """Is a defense better than another? Answers with paired differences and a verdict.

    Runs what is missing, clean data and undefended victims too. A verdict takes at least six pairs
    of attack and seed; "better" or "worse" takes six seeds, --seeds 0-5. With --set craft_seed=seed
    each seed has a poison and purified sets of its own, which the intervals then cover; this takes
    as many times longer as there are seeds.

    Example: [bold]compare mydefense --against dvae --seeds 0-5 --plugin mydefense.py[/bold]
    """
    from benchmark.workspace.versus import versus

    workspace = workspace_of(place, work)
    named = {**OPTIONS, "defenses": "DEFENSE and --against"}
    pair = versus(workspace, defense, against, suite, axes.given(), axes.settings or (), named)
    plan = pair.plan
    workspace.check(plan)
    console.print(
        f"[bold]{escape(pair.ours)}[/bold] against [bold]{escape(pair.against)}[/bold]: "
        f"{len(plan.cells)} cells in {len(plan.stages)} stages",
        highlight=False,
    )
    outcome = workspace.run(plan.stages, pair.folder / "events.jsonl")
    records = workspace.records_of(plan)
    if absent := len(plan.cells) - len(records):
        errors.print(f"{absent} of {len(plan.cells)} cells have no result yet", highlight=False)
    if records:
        table = workspace.table(records)
        heading = f"{pair.ours} against {pair.against}"
        _show(pair.comparisons(table), table, heading, pair.folder, context.obj)
    raise typer.Exit(outcome.exit_code or (0 if records else 1))


def _show(
    comparisons: Sequence[Comparison],
    table: pd.DataFrame,
    heading: str,
    folder: Path,
    command: str,
) -> None:
    """Print the comparisons and write their files."""
    from benchmark.report.comparison import (
        comparison_html,
        comparison_latex,
        comparison_markdown,
        print_comparison,
    )
    from benchmark.report.sections import environment, facts
    from benchmark.storage.atomic import publish

    for comparison in comparisons:
        print_comparison(comparison, console)
    about = {"command": command, **facts(table), **environment(table)}
    publish(folder / "comparison.md", comparison_markdown(comparisons, heading, about).encode())
    publish(folder / "comparison.tex", comparison_latex(comparisons).encode())
    publish(folder / "comparison.html", comparison_html(comparisons, heading, about).encode())
    console.print(
        f"comparison: {escape(str(folder / 'comparison.html'))}, .md and .tex",
        highlight=False,
        soft_wrap=True,
    )
