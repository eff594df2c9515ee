"""Register the commands, and run the command line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.agree import agree
from benchmark.cli.check import check
from benchmark.cli.compare import compare
from benchmark.cli.console import console, errors
from benchmark.cli.list import list_
from benchmark.cli.merge import merge
from benchmark.cli.plan import plan
from benchmark.cli.poison import POISON, PURIFY, make
from benchmark.cli.regress import baseline, regress
from benchmark.cli.report import report
from benchmark.cli.run import run
from benchmark.cli.table import table

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EPILOG = (
    "Without a command the suite quick is run. Then try [bold]list defenses[/bold], "
    "[bold]plan quick[/bold], docs/add-a-defense.md."
)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """How well do defenses restore learning on unlearnable images? Run suites, and read results."""
    if version:
        from benchmark import __version__

        console.print(f"uebench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        run(context=context)


app.command()(run)
app.command()(plan)
app.command("list")(list_)
app.command()(check)
app.command("poison", help=POISON)(make)
app.command("purify", help=PURIFY)(make)
app.command()(compare)
app.command()(agree)
app.command()(regress)
app.command()(report)
app.command()(table)
app.command()(merge)
app.add_typer(baseline, name="baseline")


def main() -> None:
    """Run the command that the user typed; wrong input ends with one message and status 2."""
    program, words = program_name(sys.argv[0]), sys.argv[1:]
    try:
        app(words, prog_name=program, obj=shlex.join([program, *words]))
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror and not error.filename:
            message = error.strerror  # an error of uebench; str() would put the errno before it
        errors.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
        sys.exit(2)


def program_name(started: str) -> str:
    """The name with which the user starts uebench: that of the script or of the installed program.

    Args:
        started: the first word of the command line.
    """
    script = "run_benchmark.py"
    return script if Path(started).name == script else "uebench"
