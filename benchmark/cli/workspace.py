"""What a command needs before it can run: a plan, for which data sets are read once, and word of plugins that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from benchmark.cli.options import Policy

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry
    from benchmark.catalogue.spec import Spec
    from benchmark.planning.plan import Plan
    from benchmark.planning.suite import ResolvedSuite
    from benchmark.running.scheduler.outcome import Machine
    from benchmark.storage.store import Store


def plan_suite(
    suite: ResolvedSuite,
    registry: Registry,
    data: Path,
    device: str,
    download: bool,
    errors: Console,
) -> Plan:
    """The plan of a suite. A data set that is not cached yet is read first, with a progress bar on ``errors``.

    Raises:
        ValueError, OSError: what reading a data set raises, or planning.
    """
    from benchmark.datasets._open import cached_facts, fingerprint
    from benchmark.planning.plan import make_plan
    from benchmark.running.hardware import native_precision

    def content(dataset: Spec) -> str:
        facts = cached_facts(dataset, data, registry)
        if facts is None:
            build(dataset)
            facts = cached_facts(dataset, data, registry)
            assert facts is not None
        if left_out := facts.notes.get("left_out"):
            errors.print(
                f"{dataset}: {left_out} images could not be read and are left out",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        return facts.fingerprint

    def build(dataset: Spec) -> None:
        from rich.progress import Progress

        from benchmark.api import Context

        with Progress(console=errors, transient=True) as bar:
            task = bar.add_task(escape(f"{dataset}: reading it for the first time"), total=1.0)
            ctx = Context(
                workers=os.cpu_count() or 1,
                on_progress=lambda share, note: bar.update(
                    task, completed=share, description=escape(f"{dataset}: {note}")
                ),
                on_log=lambda line: errors.print(
                    line, markup=False, highlight=False, soft_wrap=True
                ),
            )
            fingerprint(dataset, data, registry, ctx, download)

    return make_plan(suite, registry, content, native_precision(device))


def tell_broken(registry: Registry, errors: Console) -> None:
    """Names the plugins and methods that could not be read, and why."""
    registry.note_empty_plugins()
    for broken in registry.broken:
        errors.print(
            f"[yellow]left out[/yellow] {broken.kind} {escape(broken.name)}: {escape(str(broken.file))}: {escape(broken.reason)}",
            highlight=False,
        )


def machine_of(device: str, data: Path, plugins: Sequence[Path] | None) -> Machine:
    """What the workers are told of this machine."""
    from benchmark.running.scheduler.outcome import Machine

    return Machine(
        device=device,
        data_root=str(data),
        plugins=tuple(str(file.resolve()) for file in plugins or ()),
    )


def registry_of(plugins: Sequence[Path] | None) -> Registry:
    """All methods, those of the plugins among them."""
    from benchmark.catalogue.registry import Registry

    return Registry(tuple(plugins or ()))


def data_root_of(given: Path | None) -> Path:
    """The folder of data sets."""
    from benchmark.running.hardware import default_data_root

    return (given or default_data_root()).expanduser()


def store_of(results: Path) -> Store:
    """The store below a folder of results."""
    from benchmark.storage.store import Store

    return Store(results / "store")


def plan_of(
    name: str,
    axes: dict[str, Any],
    settings: Sequence[str] | None,
    registry: Registry,
    data: Path,
    device: str,
    download: bool,
    errors: Console,
) -> Plan:
    """The plan of a suite with these axes and settings. A data set that is not cached yet is read first."""
    from benchmark.planning.suite import load_suite

    suite = load_suite(name, registry, axes, settings or ())
    tell_broken(registry, errors)
    return plan_suite(suite, registry, data, device, download, errors)


def check_cells(plan: Plan, store: Store, registry: Registry, policy: Policy, data: Path) -> None:
    """Builds the methods of the cells that are about to run, so that what one of them refuses is told at once.

    Raises:
        SuiteError: with every method that refuses its values, or else every attack that refuses a data set.
    """
    from benchmark.datasets._open import cached_facts
    from benchmark.planning.suite import check_sets, check_values

    if policy is not Policy.collect:
        to_run = [
            cell for cell in plan.cells if policy is Policy.force or not store.has_record(cell.key)
        ]
        check_values(
            plan.suite.name,
            [(kind, getattr(cell, kind)) for cell in to_run for kind in ("attack", "defense")],
            registry,
        )
        found = {
            name: cached_facts(dataset, data, registry)
            for name, dataset in {str(cell.dataset): cell.dataset for cell in to_run}.items()
        }
        met = [
            (cell.attack, facts.info)
            for cell in to_run
            if (facts := found[str(cell.dataset)]) is not None
        ]
        check_sets(plan.suite.name, met, registry)
