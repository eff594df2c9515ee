"""The command ``merge``: bring the results of several machines into one store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.console import console, errors
from benchmark.cli.options import Place, Results, with_options, workspace_of


@with_options()
def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="folders of results of other machines, each with a store in it", show_default=False
        ),
    ],
    artifacts: Annotated[
        bool,
        typer.Option(
            "--artifacts", help="also poisoned and purified images, so that they are not made again"
        ),
    ] = False,
    results: Results = Path("results"),
) -> None:
    """Copy the records of other machines into the store here. Nothing here is overwritten.

    Where both have a cell with different numbers, the one here stays and the command names the
    difference. Afterwards report --all shows everything, and run --policy collect one suite.
    """
    from benchmark.storage.merge import merge_store

    into, bad = workspace_of(Place(results=results)).store, 0
    for folder in sources:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder; expected a folder of results")
        merged = merge_store(into, workspace_of(Place(results=folder)).store, artifacts)
        copied = f"{merged.records} records" + (
            f" and {merged.artifacts} artifacts" if artifacts else ""
        )
        console.print(
            f"{folder}: {copied} copied, {merged.present} there already",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        for title, sentences in (("differs", merged.conflicts), ("refused", merged.refused)):
            for sentence in sentences:
                errors.print(
                    f"{title}: {sentence}",
                    style="red",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        bad += len(merged.conflicts) + len(merged.refused)
    raise typer.Exit(1 if bad else 0)
