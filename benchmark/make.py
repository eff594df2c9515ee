"""Poisoning or purifying one data set and writing it: what the commands ``poison`` and ``purify`` do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from benchmark.datasets import known, open_dataset
from benchmark.export import check_new, export
from benchmark.prepare import plan_suite, tell_broken
from benchmark.registry import Registry
from benchmark.scheduler import Machine, run_plan
from benchmark.spec import ANCHOR, Spec
from benchmark.store import Store
from benchmark.suite import Suite, check_sets, check_values, resolve

SHOWN = {
    "linf": "L-inf {:.4f}",
    "l2_max": "L2 at most {:.3f}",
    "l0_max": "L0 at most {} pixels",
    "psnr_mean": "PSNR {:.1f} dB",
    "probe": "linear probe {:.1%}",
}


def make_and_write(
    kind: str,
    method: str,
    dataset: str,
    out: Path,
    form: str,
    seed: int,
    registry: Registry,
    store: Store,
    machine: Machine,
    download: bool,
    *,
    console: Console,
    errors: Console,
) -> int:
    """Makes what is not in the store yet, writes it to ``out`` and says what was written. Returns the exit code.

    Args:
        kind: ``attack`` or ``defense``.
        method: its spec.
        dataset: the spec of the data set whose training images are poisoned or purified.
        form: of ``export``.
        seed: the craft seed.

    Raises:
        ValueError, OSError: for anything that is wrong with these, before the work.
    """
    out = out.resolve()
    check_new(out)
    tell_broken(registry, errors)
    attack, defense = (method, ANCHOR) if kind == "attack" else (ANCHOR, method)
    suite = Suite(name="export", datasets=(dataset,), attacks=(attack,), defenses=(defense,), craft_seed=seed)
    spec = resolve(suite, kind, method, registry)
    card = registry.card(kind, spec.name)
    if kind == "defense" and not card.purifies:
        raise ValueError(f'defense "{spec.name}" changes training, not images; `list defenses` shows which purify')
    check_values("parameters", [(kind, spec)], registry)
    plan = plan_suite(suite, registry, Path(machine.data_root), machine.device, download, errors)
    if kind == "attack" and (found := known(plan.cells[0].dataset, Path(machine.data_root), registry)) is not None:
        check_sets("parameters", [(spec, found.info)], registry)
    stages = [stage for stage in plan.stages if stage.kind != "train"]
    outcome = run_plan(stages, store, machine)
    if outcome.exit_code:
        for failure in outcome.failures:
            errors.print(f"[red]{escape(failure.label)} failed: {escape(failure.error)}[/red]", highlight=False)
        return outcome.exit_code

    wanted = stages[-1]  # inputs come before what reads them
    facts = store.manifest(wanted.key)["facts"]
    about = {
        kind: _about(spec, kind, registry),
        "dataset": str(plan.cells[0].dataset),
        "fingerprint": wanted.payload["dataset"]["fingerprint"],
        "craft_seed": seed,
        "precision": wanted.payload["precision"],
        "facts": facts,
    }
    source, made = open_dataset(plan.cells[0].dataset, Path(machine.data_root), registry), store.load_images(wanted.key)
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("writing", total=1.0)
        export(out, form, made, source, about, lambda share, note: bar.update(task, completed=share, description=note))
    count = f"{len(made):,}" + (f" of {len(source.train):,}" if len(made) < len(source.train) else "")
    side, other = made.info.height, made.info.width
    console.print(f"{count} images of {side}x{other} pixels with {kind} {spec} in {out}{_measured(facts)}", markup=False)
    if form == "png" and side == other:
        console.print(f'to read them again: --dataset "folder[path={out},size={side}]"', markup=False, soft_wrap=True)
    return 0


def _about(spec: Spec, kind: str, registry: Registry) -> dict[str, Any]:
    own = {"spec": str(spec), "name": spec.name, "params": dict(spec.params), "version": registry.card(kind, spec.name).version}
    return own if spec.then is None else {**own, "then": _about(spec.then, kind, registry)}


def _measured(facts: Mapping[str, Any]) -> str:
    found = [text.format(facts[name]) for name, text in SHOWN.items() if facts.get(name) is not None]
    if "probe" in facts and facts["probe"] is None:
        found.append("no linear probe, which takes a change of images of up to 64x64 pixels, on average four or more a class")
    return f": {', '.join(found)}" if found else ""
