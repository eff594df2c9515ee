"""Do one stage of a plan; a worker calls ``run_stage``.

The steps from data and store to a record are all in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.registry import Registry
from benchmark.data import ImageSet, Splits
from benchmark.datasets._open import fingerprint, open_dataset
from benchmark.keys import axis_seed
from benchmark.planning.jobs import (
    Data,
    Job,
    Method,
    PoisonJob,
    PurifyJob,
    SurrogateJob,
    TrainJob,
    Victim,
)
from benchmark.planning.stage import Stage
from benchmark.running import craft
from benchmark.running.bf16 import bf16_by_rounding, is_rounded
from benchmark.running.clock import Clock
from benchmark.running.deterministic import deterministic
from benchmark.running.environment import _reset_peak_memory, environment, peak_memory_mb
from benchmark.running.global_random import (
    build_watched,
    import_seeded,
    seeded_stage,
    watch_hooks,
)
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.sources import sources
from benchmark.running.verify import measure
from benchmark.storage.files import sha256
from benchmark.storage.store import Store
from benchmark.training.surrogate import train_surrogate
from benchmark.training.train import TRAIN_SAMPLE, fit


def run_stage(
    stage: Stage,
    store: Store,
    machine: Machine,
    on_progress: Callable[[float, str], None],
    on_log: Callable[[str], None],
) -> None:
    """Do one stage and publish its result.

    Raises:
        Exception: whatever a method raises; nothing is published then.
    """
    registry = Registry(tuple(Path(plugin) for plugin in machine.plugins))
    job = stage.job
    _check_code(job, registry)
    ctx = Context(
        seed_axes=job.seed_axes,
        device=torch.device(machine.device),
        precision=job.precision,
        scratch=store.scratch(stage.key),
        workers=machine.workers,
        registry=registry,
        on_progress=on_progress,
        on_log=on_log,
    )
    run = _Run(stage, store, machine, registry, ctx)
    _reset_peak_memory()
    rounds = is_rounded(job.precision, machine.device)
    with deterministic(), bf16_by_rounding(rounds), seeded_stage(ctx):
        for kind, method in _methods(job):
            import_seeded(kind, method.name, registry)
        if isinstance(job, SurrogateJob):
            _surrogate(job, run)
        elif isinstance(job, PoisonJob):
            _poison(job, run)
        elif isinstance(job, PurifyJob):
            _purify(job, run)
        else:
            _train(job, run)
    store.drop_scratch(stage.key)


@dataclass(frozen=True)
class _Run:
    """The stage that runs, with its store, machine, registry and context."""

    stage: Stage
    store: Store
    machine: Machine
    registry: Registry
    ctx: Context


def _surrogate(job: SurrogateJob, run: _Run) -> None:
    attack: Attack = watch_hooks(_build("attack", job.attack, run), run.ctx)
    clean = _dataset(job.data, run).train
    attack.check(clean.info)
    clock = Clock(run.ctx.device)
    states = train_surrogate(attack, clean, run.ctx)
    seconds = clock.seconds()
    tensors = {f"checkpoint{number}": state for number, state in enumerate(states)}
    facts = {**run.ctx.notes, "checkpoints": len(states)}
    run.store.publish(run.stage.key, tensors, _manifest(run, "attack", job.attack, seconds, facts))


def _poison(job: PoisonJob, run: _Run) -> None:
    ctx, store = run.ctx, run.store
    splits = _dataset(job.data, run)
    # Each of several attacks changes the images that the one before it made.
    clean = splits.train if job.on is None else store.load_images(job.on)
    attack: Attack = _build("attack", job.attack, run)
    for name, planned in job.attack.files.items():
        if sha256(path := str(job.attack.spec.params[name])) != planned:
            raise ValueError(f"{path} changed since this run was planned; run again")
    attack.check(splits.train.info)  # the planner asked too, but leaves crashes to this stage
    if job.surrogate is not None:
        about = store.manifest(job.surrogate)["facts"]
        ctx.surrogates = tuple(
            store.load_kept(job.surrogate, f"checkpoint{number}")
            for number in range(about["checkpoints"])
        )
        ctx.note(surrogate_train_acc=about["surrogate_train_acc"])
    crafted = craft.poison(attack, clean, ctx)
    facts = crafted.facts
    if splits.notes:
        facts["dataset"] = splits.notes
    if job.on is None:
        facts["norm"] = attack.norm  # of this instance, since it may depend on parameters
    else:  # the change by all attacks together, which has no single norm
        facts.update(measure(splits.train, crafted.images))
    manifest = _manifest(run, "attack", job.attack, crafted.seconds, facts)
    store.publish_images(run.stage.key, crafted.images, manifest, ctx.kept)


def _purify(job: PurifyJob, run: _Run) -> None:
    defense: Defense = _build("defense", job.defense, run)
    protected = _mixed(job, run.store.load_images(job.poison), run)
    crafted = craft.purify(defense, protected, run.ctx)
    manifest = _manifest(run, "defense", job.defense, crafted.seconds, crafted.facts)
    run.store.publish_images(run.stage.key, crafted.images, manifest, run.ctx.kept)


def _train(job: TrainJob, run: _Run) -> None:
    store = run.store
    splits = _dataset(job.data, run)
    defense: Defense = watch_hooks(_build("defense", job.defense, run), run.ctx)
    images = store.load_images(job.purify or job.poison)
    train = images if job.purify is not None else _mixed(job, images, run, splits)
    clock = Clock(run.ctx.device)
    result = fit(job.victim.name, job.protocol, train, run.ctx, defense, splits.test)
    spent: dict[str, Mapping[str, Any]] = {"train": clock.seconds()}
    manifests = {"poison": store.manifest(job.poison)}
    if job.purify is not None:
        manifests["purify"] = store.manifest(job.purify)
    spent.update(manifests)
    facts = {name: manifest["facts"] for name, manifest in manifests.items()}
    artifacts = {
        name: manifest["files"]["images.safetensors"]["sha256"]
        for name, manifest in manifests.items()
    }
    store.publish_record(
        replace(
            job.record(run.stage.key),
            test_acc=result.test_acc[-1],
            train_acc=result.train_acc[-1],
            curve=tuple(result.test_acc),
            loss_curve=tuple(result.train_loss),
            seconds=_by_stage(spent, "seconds"),
            cpu_seconds=_by_stage(spent, "cpu_seconds"),
            device_seconds=_by_stage(spent, "device_seconds"),
            peak_memory_mb=peak_memory_mb(),
            facts={**facts, "train": dict(run.ctx.notes), "data": _sizes(train, splits.test)},
            artifacts=artifacts,
            environment=environment(run.machine, job.precision),
            sources=sources(job, run.registry),
            date=_now(),
        )
    )


def _by_stage(spent: Mapping[str, Mapping[str, Any]], clock: str) -> dict[str, float]:
    """Return the seconds of each stage that this clock counted."""
    return {stage: counted[clock] for stage, counted in spent.items() if clock in counted}


def _sizes(train: ImageSet, test: ImageSet) -> dict[str, int]:
    """Return what decides how far above chance an accuracy must be to mean something."""
    measured = min(len(train), TRAIN_SAMPLE)
    return {"classes": test.info.num_classes, "test": len(test), "train_measured": measured}


def _methods(job: Job) -> list[tuple[str, Method | Victim]]:
    """Return the kinds and methods whose code a job runs."""
    planned: list[tuple[str, Method | Victim | None]] = []
    if isinstance(job, (SurrogateJob, PoisonJob)):
        planned += [("attack", job.attack), ("victim", job.victim)]
    else:
        planned.append(("defense", job.defense))
    if isinstance(job, TrainJob):
        planned.append(("victim", job.victim))
    return [(kind, method) for kind, method in planned if method is not None]


def _check_code(job: Job, registry: Registry) -> None:
    """Refuse a plugin whose code is no longer the code that the key names."""
    for kind, method in _methods(job):
        card = registry.card(kind, method.name)
        if card.content != method.content:
            raise ValueError(f"{card.file} changed since this run was planned; run again")


def _build(kind: str, method: Method, run: _Run) -> Any:
    return build_watched(kind, method.spec, run.registry, run.ctx)


def _dataset(data: Data, run: _Run) -> Splits:
    spec, root = data.spec, Path(run.machine.data_root)
    found, planned = fingerprint(spec, root, run.registry), data.fingerprint
    if found != planned:
        raise ValueError(
            f'data set "{spec}" changed since this run was planned '
            f"({planned[:12]} then, {found[:12]} now); run again"
        )
    return open_dataset(spec, root, run.registry)


def _mixed(
    job: PurifyJob | TrainJob, poisoned: ImageSet, run: _Run, splits: Splits | None = None
) -> ImageSet:
    """Return the poisoned set at the job's poison ratio.

    One permutation decides for all ratios, so that smaller ratios nest in larger ones.
    """
    if job.ratio == 1:
        return poisoned
    clean = (splits or _dataset(job.data, run)).train
    return mix(clean, poisoned, job.ratio, axis_seed(*job.mix_axes))


def mix(clean: ImageSet, poisoned: ImageSet, ratio: float, seed: int) -> ImageSet:
    """Take a share ``ratio`` of the images from ``poisoned`` and the others from ``clean``."""
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
    chosen = order[: round(ratio * len(clean))]
    x = clean.x.clone()
    x[chosen] = poisoned.x[chosen]
    return clean.with_x(x)


def _manifest(
    run: _Run,
    kind: str,
    method: Method,
    seconds: Mapping[str, float],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    stage = run.stage
    return {
        "kind": stage.kind,
        "label": stage.label,
        "identity": stage.job.identity(),
        "method": {
            "kind": kind,
            "name": method.name,
            "params": method.spec.params,
            "version": method.version,
        },
        "inputs": list(stage.inputs),
        **seconds,
        "facts": dict(facts),
        "peak_memory_mb": peak_memory_mb(),
        "source": sources(stage.job, run.registry),
        "date": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
