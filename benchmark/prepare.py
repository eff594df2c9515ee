"""What a command needs before it can run: a plan, for which data sets are read once, and word of plugins that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmark.datasets import fingerprint, known
from benchmark.hardware import native_precision
from benchmark.plan import Plan, make_plan
from benchmark.registry import Registry
from benchmark.spec import Spec
from benchmark.suite import Suite


def plan_suite(suite: Suite, registry: Registry, data: Path, device: str, download: bool, errors: Console) -> Plan:
    """The plan of a suite. A data set that is not cached yet is read first, with a progress bar on ``errors``.

    Raises:
        ValueError, OSError: what reading a data set raises, or planning.
    """

    def content(dataset: Spec) -> str:
        facts = known(dataset, data, registry)
        if facts is None:
            build(dataset)
            facts = known(dataset, data, registry)
            assert facts is not None
        if left_out := facts.notes.get("left_out"):
            errors.print(f"{dataset}: {left_out} images could not be read and are left out", markup=False, highlight=False, soft_wrap=True)
        return facts.fingerprint

    def build(dataset: Spec) -> None:
        from rich.progress import Progress

        from benchmark.api import Context

        with Progress(console=errors, transient=True) as bar:
            task = bar.add_task(escape(f"{dataset}: reading it for the first time"), total=1.0)
            ctx = Context(
                workers=os.cpu_count() or 1,
                on_progress=lambda share, note: bar.update(task, completed=share, description=escape(f"{dataset}: {note}")),
                on_log=lambda line: errors.print(line, markup=False, highlight=False, soft_wrap=True),
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
