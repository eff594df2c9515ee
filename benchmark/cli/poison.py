"""The commands ``poison`` and ``purify``: make one data set and write it for use elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.catalogue.spec import ANCHOR, Spec
from benchmark.cli.console import console, errors
from benchmark.cli.options import Format, Place, with_options, workspace_of

if TYPE_CHECKING:
    from benchmark.catalogue.registry import Registry
    from benchmark.workspace.workspace import Workspace

MADE = "Parameters are the published ones unless given. What was made before is not made again."

POISON = (
    "Make the training images of a data set, your own folder too, unlearnable, and write them."
    f"\n\n{MADE}"
)
PURIFY = f"Purify the training images of a data set, your own folder too, and write them.\n\n{MADE}"


@with_options()
def make(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Argument(
            help="with parameters: for poison an attack, such as em\\[granularity=class]; "
            "for purify jpeg\\[quality=30]"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="a new folder for the images and their manifest.json", show_default=False
        ),
    ],
    place: Place,
    dataset: Annotated[
        str,
        typer.Option(help='whose images: embedded, cifar10, "folder\\[path=photos,size=64]", ...'),
    ] = "embedded",
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="png: a folder that can be a data set; npz: arrays; pt: the change alone, "
            "perturbation.pt",
        ),
    ] = Format.png,
    seed: Annotated[int, typer.Option(help="of the poison or the purifier", min=0)] = 0,
) -> None:
    kind = "attack" if context.info_name == "poison" else "defense"
    code = make_and_write(workspace_of(place), kind, method, dataset, out, form.value, seed)
    raise typer.Exit(code)


SHOWN = {
    "linf": "L-inf {:.4f}",
    "l2_max": "L2 at most {:.3f}",
    "l0_max": "L0 at most {} pixels",
    "psnr_mean": "PSNR {:.1f} dB",
    "probe": "linear probe {:.1%}",
}


def make_and_write(
    workspace: Workspace, kind: str, method: str, dataset: str, out: Path, form: str, seed: int
) -> int:
    """Poison or purify a data set, and write it to ``out``.

    Images that are in the store already are not made again.

    Args:
        workspace: the workspace to work in.
        kind: ``attack`` or ``defense``.
        method: the spec of the attack or defense.
        dataset: the spec of the data set whose training images are poisoned or purified.
        out: the folder to make.
        form: one of ``export.FORMATS``.
        seed: the craft seed.

    Returns:
        The exit status: 0, or that of the failed run.

    Raises:
        ValueError, OSError: if an argument is wrong, before the work starts.
    """
    from rich.progress import Progress

    from benchmark.analysis.doubts import of_purified
    from benchmark.datasets._open import cached_facts, open_dataset
    from benchmark.planning.resolve import resolve_spec
    from benchmark.planning.suite import ResolvedSuite, check_sets, check_values
    from benchmark.storage.export import check_new, export
    from benchmark.workspace.arguments import check_purifies
    from benchmark.workspace.blame import check_no_path

    out, registry, store = out.resolve(), workspace.registry, workspace.store
    check_new(out)
    check_no_path(dataset, "--dataset", registry.cards("dataset"))
    attack, defense = (method, ANCHOR) if kind == "attack" else (ANCHOR, method)
    suite = ResolvedSuite(
        name="export",
        datasets=(resolve_spec("dataset", dataset, registry),),
        attacks=(resolve_spec("attack", attack, registry),),
        defenses=(resolve_spec("defense", defense, registry),),
        craft_seed=seed,
    )
    (spec,) = suite.attacks if kind == "attack" else suite.defenses
    if kind == "defense":
        check_purifies(spec.name, registry)
    check_values("parameters", [(kind, spec)], registry)
    plan = workspace.plan(suite)
    cached = cached_facts(plan.cells[0].dataset, workspace.data, registry)
    if kind == "attack" and cached is not None:
        check_sets("parameters", [(spec, cached.info)], registry)
    stages = [stage for stage in plan.stages if stage.kind != "train"]
    outcome = workspace.run(stages)
    if outcome.exit_code:
        for failure in outcome.failures:
            errors.print(
                f"[red]{escape(failure.label)} failed: {escape(failure.error)}[/red]",
                highlight=False,
            )
        return outcome.exit_code

    wanted = stages[-1]  # inputs come before the stages that read them
    facts = store.manifest(wanted.key)["facts"]
    about = {
        kind: _about(spec, kind, registry),
        "dataset": str(plan.cells[0].dataset),
        "fingerprint": wanted.job.data.fingerprint,
        "craft_seed": seed,
        "precision": wanted.job.precision,
        "facts": facts,
    }
    source = open_dataset(plan.cells[0].dataset, workspace.data, registry)
    made = store.load_images(wanted.key)
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("writing", total=1.0)
        export(
            out,
            form,
            made,
            source,
            about,
            lambda share, note: bar.update(task, completed=share, description=note),
        )
    count = f"{len(made):,}"
    if len(made) < len(source.train):
        count += f" of {len(source.train):,}"
    side, other = made.info.height, made.info.width
    console.print(
        f"{count} images of {side}x{other} pixels with {kind} {spec} in {out}{_measured(facts)}",
        markup=False,
    )
    for doubt in of_purified(str(spec), facts) if kind == "defense" else []:
        errors.print(f"! {doubt}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if form == "png" and side == other:
        console.print(
            f'to read them again: --dataset "folder[path={out},size={side}]"',
            markup=False,
            soft_wrap=True,
        )
    return 0


def _about(spec: Spec, kind: str, registry: Registry) -> dict[str, Any]:
    own = {
        "spec": str(spec),
        "name": spec.name,
        "params": dict(spec.params),
        "version": registry.card(kind, spec.name).version,
    }
    return own if spec.then is None else {**own, "then": _about(spec.then, kind, registry)}


def _measured(facts: Mapping[str, Any]) -> str:
    values = [
        text.format(facts[name]) for name, text in SHOWN.items() if facts.get(name) is not None
    ]
    if "probe" in facts and facts["probe"] is None:
        values.append(
            "no linear probe, which takes a change of images of up to 64x64 pixels, on average "
            "four or more a class"
        )
    return f": {', '.join(values)}" if values else ""
