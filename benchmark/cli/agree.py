"""The command ``agree``: does a suite order attacks and defenses as published tables do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console
from benchmark.cli.options import Place, Plugins, Results, program_of, with_options, workspace_of


@with_options()
def agree(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Argument(
            help="the defenses, data set, victim and protocol of this suite's last run; without it "
            "those of all records",
            show_default=False,
        ),
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(
            help="a paper to compare with: bridgepure2025, or bridgepure2025\\[dataset=cifar10] if "
            "our data set has another name; may be given again. Without it all that share two "
            "cells of attack and defense with ours",
            show_default=False,
        ),
    ] = None,
    plugin: Plugins = None,
    results: Results = Path("results"),
) -> None:
    """Does a suite order attacks and defenses as papers do? Kendall's tau-b, and who disagrees.

    Takes the suite's records, and those of other runs in the store that differ only in attack or
    seed. Prints the agreement with each paper and the pairs in opposite order, and writes
    agreement.md. Victims, protocols and sizes of the data differ by nature, so that orders are
    compared and not accuracies; agreement.md lists what differs. Runs nothing.

    Example: [bold]agree cifar10-lite --results results/baselines --published
    "apbench2023\\[dataset=cifar10]"[/bold]
    """
    from benchmark.analysis.agreement import agreements, compared_records
    from benchmark.analysis.leaderboard import Summary
    from benchmark.analysis.published import load_published
    from benchmark.planning.suite import read_suite
    from benchmark.report.agreement import agreement_markdown, print_agreement
    from benchmark.storage.atomic import publish

    workspace = workspace_of(Place(plugin=plugin, results=results))
    name = "all" if suite is None else str(read_suite(suite)[0]["name"])
    records = compared_records(workspace.records(suite), workspace.store.records())
    if not records:
        raise ValueError(
            f"{name} has no finished record of a defended victim on an attacked data set in "
            f"{results}; only these are compared, run the suite with attacks and defenses first"
        )
    table = workspace.table(records, suite is None, program_of(context.obj))
    cards = {kind: workspace.registry.cards(kind) for kind in ("attack", "defense")}
    groups = agreements(Summary(table), load_published(), published or (), cards)
    print_agreement(groups, console)
    file = workspace.folder(name) / "agreement.md"
    publish(file, agreement_markdown(groups, name, {"command": context.obj}).encode())
    console.print(f"agreement: {escape(str(file))}", highlight=False, soft_wrap=True)
