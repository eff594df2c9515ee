"""The command ``compare``: a defense against a reference, on the attacks of a suite."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.catalogue.spec import ANCHOR, Spec
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
    axes_of,
)
from benchmark.cli.workspace import check_cells, data_root_of, machine_of, registry_of, store_of
from benchmark.keys import digest

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry
    from benchmark.planning.suite import ResolvedSuite
    from benchmark.storage.record import Record


def compare(
    defense: Annotated[str, typer.Argument(help="yours, such as mydefense or jpeg\\[quality=30]")],
    against: Annotated[
        str, typer.Option("--against", help="the defense to compare it with", show_default=False)
    ],
    suite: Annotated[
        str,
        typer.Option(
            "--suite", help="whose attacks, data and victims: a shipped suite or a YAML file"
        ),
    ] = "quick",
    attacks: Axis = None,
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
    """Is a defense better than another? Runs what is missing and answers with paired differences and a verdict.

    Clean data and undefended victims come with it. A verdict takes six pairs of attack and seed at least; "better" or "worse" take six
    seeds, --seeds 0-5. With --set craft_seed=seed each seed also has a poison and purified sets of its own, so that the intervals cover
    those too; it takes as many times longer as there are seeds.
    """
    from benchmark.cli.workspace import plan_suite, tell_broken
    from benchmark.running.hardware import choose_device
    from benchmark.running.last_run import records_of, selection_of
    from benchmark.running.scheduler.run import run_plan

    defense, against, device = defense.strip(), against.strip(), choose_device(device)
    registry, data, store = registry_of(plugin), data_root_of(data_root), store_of(results)
    tell_broken(registry, errors)
    axes = axes_of(attacks, None, dataset, victim, protocol, seeds)
    reduced = _reduced(suite, defense, against, axes, settings or [], registry)
    plan = plan_suite(reduced, registry, data, device, download, errors)
    folder = results / plan.suite.name / _folder_name(defense, against, axes, settings or [])
    check_cells(plan, store, registry, policy, data)
    console.print(
        f"[bold]{escape(defense)}[/bold] against [bold]{escape(against)}[/bold]: {len(plan.cells)} cells in {len(plan.stages)} stages",
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
    records = records_of(store, selection_of(plan))
    if absent := len(plan.cells) - len(records):
        errors.print(f"{absent} of {len(plan.cells)} cells have no result yet", highlight=False)
    if records:
        _show(records, defense, against, folder, registry)
    raise typer.Exit(outcome.exit_code or (0 if records else 1))


def _reduced(
    name: str,
    defense: str,
    against: str,
    axes: dict[str, object],
    settings: Sequence[str],
    registry: Registry,
) -> ResolvedSuite:
    """The suite with these two defenses, the undefended victims and the clean data.

    Raises:
        ValueError: if the two are one defense, or as ``load_suite`` does.
    """
    from benchmark.planning.suite import load_suite

    defenses = list(dict.fromkeys((ANCHOR, defense, against)))
    suite = load_suite(name, registry, {**axes, "defenses": defenses}, settings)
    if [str(spec) for spec in suite.defenses] != [text.strip() for text in defenses]:
        raise ValueError(
            "--set defenses=...: compare takes the two defenses that it is given, and no others; leave it out"
        )
    resolved = {str(spec): spec for spec in suite.defenses}
    ours, reference = (resolved[text.strip()] for text in (defense, against))
    if (ours.name, ours.params) == (reference.name, reference.params):
        raise ValueError(
            f'"{defense}" and "{against}" are one defense with the same parameters; name two that differ'
        )
    if any(attack.name == ANCHOR for attack in suite.attacks):
        return suite
    anchor = registry.resolve("attack", Spec(ANCHOR))
    return replace(suite, attacks=(anchor, *suite.attacks))


def _show(
    records: list[Record], defense: str, against: str, folder: Path, registry: Registry
) -> None:
    """Prints the comparison and writes its files."""
    from benchmark.analysis.comparison import comparisons
    from benchmark.analysis.table import to_table
    from benchmark.planning.suite import without_presets
    from benchmark.report.comparison import (
        comparison_html,
        comparison_latex,
        comparison_markdown,
        print_comparison,
    )
    from benchmark.report.sections import environment, facts
    from benchmark.storage.atomic import publish

    table = to_table(records, without_presets=without_presets(registry))
    found = comparisons(table, defense, against)
    for comparison in found:
        print_comparison(comparison, console)
    heading = f"{defense} against {against}"
    about = {
        "command": shlex.join(["run_benchmark.py", *sys.argv[1:]]),
        **facts(table),
        **environment(table),
    }
    publish(folder / "comparison.md", comparison_markdown(found, heading, about).encode())
    publish(folder / "comparison.tex", comparison_latex(found).encode())
    publish(folder / "comparison.html", comparison_html(found, heading, about).encode())
    console.print(
        f"comparison: {escape(str(folder / 'comparison.html'))}, .md and .tex",
        highlight=False,
        soft_wrap=True,
    )


def _folder_name(
    defense: str, against: str, axes: Mapping[str, object], settings: Sequence[str]
) -> str:
    """Says what is compared, so that the answers to several questions stand beside each other: both defenses, and what the suite has not.

    The same question has the same name, however it was written: ``--seeds 0-2`` and ``--seeds 2,1,0``. Of two values of a setting the
    last one counts, as in the run.
    """
    asked = []
    for name, values in axes.items():
        texts = (
            sorted({str(value) for value in values}) if isinstance(values, list) else [str(values)]
        )
        asked.append(f"{name}={','.join(texts)}")
    last = {
        name.strip(): value.strip() for name, _, value in (text.partition("=") for text in settings)
    }
    asked += sorted(f"{name}={value}" for name, value in last.items())
    return "-".join(
        [
            "compare",
            _file_name(defense),
            "vs",
            _file_name(against),
            *([_file_name(" ".join(asked))] if asked else []),
        ]
    )


def _file_name(spec: str) -> str:
    """A spec as part of a folder's name. What had to be changed is told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip("-")[:60]
    return plain if plain == spec else f"{plain}-{digest(spec)[:6]}"
