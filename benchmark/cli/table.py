"""The command ``table``: write all results as one file for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import Place, Plugins, Results, program_of, with_options, workspace_of


@with_options()
def table(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Argument(
            help="only the cells of this suite's last run; without it all records of the store",
            show_default=False,
        ),
    ] = None,
    plugin: Plugins = None,
    license_: Annotated[
        str, typer.Option("--license", help="under which you pass the table on, such as CC-BY-4.0")
    ] = "not stated",
    results: Results = Path("results"),
) -> None:
    """Write the long table, one row a trained victim, as records.csv.

    The file records.json explains its columns. Failed cells are rows too. Where pyarrow is
    installed (the extra "parquet"), records.parquet is written as well.
    """
    from benchmark.analysis.columns import describe, long_csv, long_parquet
    from benchmark.planning.suite import read_suite
    from benchmark.storage.atomic import publish

    workspace = workspace_of(Place(plugin=plugin, results=results))
    name = "all" if suite is None else str(read_suite(suite)[0]["name"])
    folder = workspace.folder(name)
    records = workspace.records(suite)
    long = workspace.table(records, mixed=suite is None, program=program_of(context.obj))
    files = {"records.csv": long_csv(long).encode()}
    try:
        files["records.parquet"] = long_parquet(long)
    except ImportError as error:
        (folder / "records.parquet").unlink(missing_ok=True)  # of an earlier table
        errors.print(
            f"there is no records.parquet: {escape(str(error))}", highlight=False, soft_wrap=True
        )
    description = describe(long, files, f"uebench-{name}", license_)
    files["records.json"] = json.dumps(description, indent=1).encode() + b"\n"
    for file, content in files.items():
        publish(folder / file, content)
    console.print(
        f"{len(long)} records: {escape(', '.join(str(folder / file) for file in files))}",
        highlight=False,
        soft_wrap=True,
    )
