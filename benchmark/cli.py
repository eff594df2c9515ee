"""The command line. Some commands are in ``commands``. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.commands.compare import compare
from benchmark.commands.merge import merge
from benchmark.commands.regress import baseline, regress
from benchmark.commands.report import report, show_selection
from benchmark.commands.table import table
from benchmark.options import (
    Axis,
    ChosenExecutor,
    ChosenPolicy,
    DataRoot,
    Device,
    Download,
    Executor,
    Format,
    Kind,
    Plugins,
    Policy,
    Results,
    Seeds,
    Settings,
    Slots,
    SlotsPerGpu,
    SuiteName,
    What,
    axes_of,
    check_cells,
    data_root_of,
    machine_of,
    plan_of,
    registry_of,
    store_of,
)
from benchmark.spec import did_you_mean

if TYPE_CHECKING:
    from benchmark.plan import Plan

app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
console = Console()
errors = Console(stderr=True)

EPILOG = "Start with [bold]run_benchmark.py[/bold] alone; then [bold]list defenses[/bold], [bold]plan quick[/bold], docs/add-a-defense.md."
MADE = "Parameters are the published ones unless given. What was made before is not made again."


@app.callback(invoke_without_command=True, epilog=EPILOG)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """How well do defenses restore learning on unlearnable examples?

    Without a command: runs the suite [bold]quick[/bold] on the embedded images and reports.
    """
    if version:
        from benchmark import __version__

        console.print(f"uebench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        run()


@app.command()
def run(
    suite: SuiteName = "quick",
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
    policy: ChosenPolicy = Policy.missing,
) -> None:
    """Run a suite and report. Running the same command again continues where it stopped."""
    from benchmark.hardware import choose_device
    from benchmark.scheduler import run_plan
    from benchmark.selection import save_selection, selection_of

    device = choose_device(device)
    registry, data = registry_of(plugin), data_root_of(data_root)
    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    plan = plan_of(suite, axes, settings, registry, data, device, download, errors)
    store = store_of(results)
    folder = results / plan.suite.name
    check_cells(plan, store, registry, policy, data)
    console.print(
        f"[bold]{escape(plan.suite.name)}[/bold]: {len(plan.cells)} cells in {len(plan.stages)} stages" + _skipped(plan), highlight=False
    )
    outcome = run_plan(
        plan.stages,
        store,
        machine_of(device, data, plugin),
        executor=executor.value,
        slots_per_gpu=slots_per_gpu,
        workers=slots,
        policy=policy.value,
        events=folder / "events.jsonl",
    )
    selection = selection_of(plan)
    save_selection(folder, selection)
    show_selection(selection, store, folder, registry)
    raise typer.Exit(outcome.exit_code)


@app.command()
def plan(
    suite: SuiteName = "quick",
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
) -> None:
    """Show a suite's cells: what is cached, what is skipped and why, and what the rest will cost. Runs nothing.

    Values that a method refuses, such as eps=8, are told by run before it starts.
    """
    from benchmark.hardware import choose_device
    from benchmark.listing import print_plan
    from benchmark.scheduler import default_slots

    device = choose_device(device)
    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    made = plan_of(suite, axes, settings, registry_of(plugin), data_root_of(data_root), device, download, errors)
    store = store_of(results)
    print_plan(made, store, len(default_slots(device)), console)


@app.command("list")
def list_(
    what: Annotated[What, typer.Argument(help="what to list")],
    name: Annotated[str | None, typer.Argument(help="only this one, in full", show_default=False)] = None,
    plugin: Plugins = None,
) -> None:
    """List methods with parameters, defaults and citation; or protocols, or suites."""
    from benchmark.listing import list_methods, list_protocols, list_suites
    from benchmark.prepare import tell_broken

    if what is What.protocols:
        list_protocols(name, console)
    elif what is What.suites:
        list_suites(name, console)
    else:
        registry = registry_of(plugin)
        list_methods(what.value.removesuffix("s"), name, registry, console)
        tell_broken(registry, errors)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="an attack or a defense")],
    kind: Annotated[Kind | None, typer.Option(help="needed where an attack and a defense share a name", show_default=False)] = None,
    plugin: Plugins = None,
) -> None:
    """Test one method, also a stranger's, against the promises that every method makes."""
    from benchmark.check import check_method
    from benchmark.prepare import tell_broken

    registry = registry_of(plugin)
    kinds = [kind.value] if kind else [one for one in ("attack", "defense") if name in registry.cards(one)]
    if not kinds:
        known = sorted({*registry.cards("attack"), *registry.cards("defense")})
        tell_broken(registry, errors)
        raise ValueError(f'unknown method "{name}"{did_you_mean(name, known)}')

    failed = 0
    for one in kinds:
        console.print(f"[bold]{one} {escape(name)}[/bold]")
        for result in check_method(one, name, registry):
            failed += not result.passed
            mark = "[green]ok[/green]    " if result.passed else "[red]FAILED[/red]"
            console.print(f"  {mark} {escape(result.name)}" + (f": {escape(result.detail)}" if result.detail else ""), highlight=False)
    console.print(f"[red]{failed} checks failed[/red]" if failed else "[green]all checks passed[/green]")
    raise typer.Exit(1 if failed else 0)


@app.command("poison", help=f"Make the training images of a data set, your own folder too, unlearnable, and write them.\n\n{MADE}")
@app.command("purify", help=f"Purify the training images of a data set, your own folder too, and write them.\n\n{MADE}")
def make(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(help="with parameters: for poison an attack, such as em\\[granularity=class]; for purify jpeg\\[quality=30]")
    ],
    out: Annotated[Path, typer.Option("--out", help="a new folder for the images and their manifest.json", show_default=False)],
    dataset: Annotated[str, typer.Option(help='whose images: embedded, cifar10, "folder\\[path=photos,size=64]", ...')] = "embedded",
    form: Annotated[
        Format, typer.Option("--format", help="png: a folder that can be a data set; npz: arrays; pt: the change alone, perturbation.pt")
    ] = Format.png,
    seed: Annotated[int, typer.Option(help="of the poison or the purifier", min=0)] = 0,
    plugin: Plugins = None,
    results: Results = Path("results"),
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "auto",
) -> None:
    from benchmark.hardware import choose_device
    from benchmark.make import make_and_write

    kind = "attack" if context.info_name == "poison" else "defense"
    machine = machine_of(choose_device(device), data_root_of(data_root), plugin)
    code = make_and_write(
        kind,
        method,
        dataset,
        out,
        form.value,
        seed,
        registry_of(plugin),
        store_of(results),
        machine,
        download,
        console=console,
        errors=errors,
    )
    raise typer.Exit(code)


def _skipped(plan: Plan) -> str:
    return f", {len(plan.skips)} combinations skipped (`plan` says why)" if plan.skips else ""


app.command()(compare)
app.command()(regress)
app.command()(report)
app.command()(table)
app.command()(merge)
app.add_typer(baseline, name="baseline")


def main() -> None:
    """Runs the command line; errors of users come as one message, without a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror and not error.filename:
            message = error.strerror  # one of ours; str() would put the errno before it
        errors.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
