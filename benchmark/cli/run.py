"""The command ``run``: computes the cells of a suite that are missing, and reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from benchmark.cli.console import console, errors
from benchmark.cli.options import (
    Axis,
    ChosenExecutor,
    ChosenPolicy,
    DataRoot,
    Device,
    Download,
    Executor,
    Plugins,
    Policy,
    Results,
    Seeds,
    Settings,
    Slots,
    SlotsPerGpu,
    SuiteName,
    axes_of,
)
from benchmark.cli.report import show_selection
from benchmark.cli.workspace import (
    check_cells,
    data_root_of,
    machine_of,
    plan_of,
    registry_of,
    store_of,
)

if TYPE_CHECKING:
    from benchmark.planning.plan import Plan


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
    from benchmark.running.hardware import choose_device
    from benchmark.running.last_run import save_selection, selection_of
    from benchmark.running.scheduler.run import run_plan

    device = choose_device(device)
    registry, data = registry_of(plugin), data_root_of(data_root)
    axes = axes_of(attacks, defenses, dataset, victim, protocol, seeds)
    plan = plan_of(suite, axes, settings, registry, data, device, download, errors)
    store = store_of(results)
    folder = results / plan.suite.name
    check_cells(plan, store, registry, policy, data)
    console.print(
        f"[bold]{escape(plan.suite.name)}[/bold]: {len(plan.cells)} cells in {len(plan.stages)} stages"
        + _skipped(plan),
        highlight=False,
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


def _skipped(plan: Plan) -> str:
    return f", {len(plan.skips)} combinations skipped (`plan` says why)" if plan.skips else ""
