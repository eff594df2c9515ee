"""Doing one stage: what a worker executes. Everything that touches data and the store on the way to a record is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.protocol import Protocol
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.catalogue.spec import Spec
from benchmark.data import ImageSet, Splits
from benchmark.datasets._open import fingerprint, open_dataset
from benchmark.keys import axis_seed
from benchmark.planning.stage import Stage
from benchmark.running.environment import _reset_peak_memory, environment, peak_memory_mb
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.verify import measure, unchanged, verify_poison, verify_purified
from benchmark.storage.files import sha256, sha256_of
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from benchmark.training.surrogate import train_surrogate
from benchmark.training.train import fit

CORE_SOURCES = (
    "benchmark/training/train.py",
    "benchmark/training/loader.py",
    "benchmark/data.py",
    "benchmark/catalogue/protocol.py",
)


def run_stage(
    stage: Stage,
    store: Store,
    machine: Machine,
    on_progress: Callable[[float, str], None],
    on_log: Callable[[str], None],
) -> None:
    """Does one stage and publishes its result.

    Raises:
        Exception: whatever a method raises; nothing is published then.
    """
    registry = Registry(tuple(Path(plugin) for plugin in machine.plugins))
    set_up_torch()
    ctx = Context(
        seed_axes=tuple(stage.payload["seed_axes"]),
        device=torch.device(machine.device),
        precision=stage.payload["precision"],
        scratch=store.scratch(stage.key),
        workers=machine.workers,
        registry=registry,
        on_progress=on_progress,
        on_log=on_log,
    )
    _reset_peak_memory()
    run = {"surrogate": _surrogate, "poison": _poison, "purify": _purify, "train": _train}[
        stage.kind
    ]
    run(stage, store, machine, registry, ctx)
    store.drop_scratch(stage.key)


def set_up_torch(threads: int = 1) -> None:
    """Makes torch in this process repeatable. The order of sums, and with it the last bits, depends on the number of threads."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for finding bugs; it writes every new tensor
    torch.set_num_threads(threads)


def _surrogate(
    stage: Stage, store: Store, machine: Machine, registry: Registry, ctx: Context
) -> None:
    attack: Attack = registry.build("attack", _spec(stage.payload["attack"]))
    clean = _dataset(stage, machine, registry).train
    attack.check(clean.info)
    started = time.perf_counter()
    states = train_surrogate(attack, clean, ctx)
    seconds = time.perf_counter() - started
    tensors = {f"checkpoint{number}": state for number, state in enumerate(states)}
    store.publish(
        stage.key,
        tensors,
        _manifest(stage, seconds, {**ctx.notes, "checkpoints": len(states)}, registry, "attack"),
    )


def _poison(stage: Stage, store: Store, machine: Machine, registry: Registry, ctx: Context) -> None:
    splits = _dataset(stage, machine, registry)
    on = stage.payload.get("on")
    clean = (
        splits.train if on is None else store.load_images(on)
    )  # of several attacks, each changes what the one before it made
    attack: Attack = registry.build("attack", _spec(stage.payload["attack"]))
    for name, planned in stage.payload["files"].items():
        if sha256(path := str(stage.payload["attack"]["params"][name])) != planned:
            raise ValueError(f"{path} changed since this run was planned; run again")
    surrogate = stage.payload.get("surrogate")
    if surrogate is not None:
        facts = store.manifest(surrogate)["facts"]
        ctx.surrogates = tuple(
            store.load_kept(surrogate, f"checkpoint{number}")
            for number in range(facts["checkpoints"])
        )
        ctx.note(surrogate_train_acc=facts["surrogate_train_acc"])
    with unchanged(clean, f'attack "{attack.name}"'):
        started = time.perf_counter()
        poisoned = attack.poison(clean, ctx)
        seconds = time.perf_counter() - started
    facts = {
        **verify_poison(clean, poisoned, attack),
        **ctx.notes,
        **({"dataset": splits.notes} if splits.notes else {}),
    }
    if on is None:
        facts["norm"] = attack.norm  # this instance's: it may depend on parameters
    else:
        facts.update(
            measure(splits.train, poisoned)
        )  # the change by all attacks together, which has no one norm
    store.publish_images(
        stage.key, poisoned, _manifest(stage, seconds, facts, registry, "attack"), ctx.kept
    )


def _purify(stage: Stage, store: Store, machine: Machine, registry: Registry, ctx: Context) -> None:
    defense: Defense = registry.build("defense", _spec(stage.payload["defense"]))
    protected = _mixed(stage, store.load_images(stage.payload["poison"]), machine, registry)
    with unchanged(protected, f'defense "{defense.name}"'):
        started = time.perf_counter()
        purified = defense.purify(protected, ctx)
        seconds = time.perf_counter() - started
    facts = {**verify_purified(protected, purified, defense), **ctx.notes}
    store.publish_images(
        stage.key, purified, _manifest(stage, seconds, facts, registry, "defense"), ctx.kept
    )


def _train(stage: Stage, store: Store, machine: Machine, registry: Registry, ctx: Context) -> None:
    payload = stage.payload
    splits = _dataset(stage, machine, registry)
    defense: Defense = registry.build("defense", _spec(payload["defense"]))
    purified = payload["purify"] is not None
    images = store.load_images(payload["purify"] if purified else payload["poison"])
    train = images if purified else _mixed(stage, images, machine, registry, splits)
    started = time.perf_counter()
    result = fit(
        payload["victim"],
        Protocol(**payload["protocol"]),
        train,
        ctx,
        defense,
        splits.test,
        registry,
    )
    seconds = {"train": round(time.perf_counter() - started, 3)}
    manifests = {
        name: store.manifest(payload[name])
        for name in ("poison", "purify")
        if payload[name] is not None
    }
    seconds.update({name: manifest["seconds"] for name, manifest in manifests.items()})
    store.publish_record(
        Record(
            **{**payload["cell"], "needs": tuple(payload["cell"]["needs"])},
            test_acc=result.test_acc[-1],
            train_acc=result.train_acc[-1],
            curve=tuple(result.test_acc),
            loss_curve=tuple(result.train_loss),
            seconds=seconds,
            peak_memory_mb=peak_memory_mb(),
            facts={
                **{name: manifest["facts"] for name, manifest in manifests.items()},
                "train": dict(ctx.notes),
            },
            artifacts={
                name: manifest["files"]["images.safetensors"]["sha256"]
                for name, manifest in manifests.items()
            },
            environment=environment(machine),
            sources=_sources(registry, payload["cell"]),
            date=_now(),
        )
    )


def _dataset(stage: Stage, machine: Machine, registry: Registry) -> Splits:
    spec, root = _spec(stage.payload["dataset"]), Path(machine.data_root)
    found, planned = fingerprint(spec, root, registry), stage.payload["dataset"]["fingerprint"]
    if found != planned:
        raise ValueError(
            f'data set "{spec}" changed since this run was planned ({planned[:12]} then, {found[:12]} now); run again'
        )
    return open_dataset(spec, root, registry)


def _mixed(
    stage: Stage,
    poisoned: ImageSet,
    machine: Machine,
    registry: Registry,
    splits: Splits | None = None,
) -> ImageSet:
    """The poisoned set at the stage's poison ratio. One stored permutation, so smaller ratios nest in larger ones."""
    ratio = stage.payload["ratio"]
    if ratio == 1:
        return poisoned
    clean = (splits or _dataset(stage, machine, registry)).train
    return mix(clean, poisoned, ratio, axis_seed(*stage.payload["mix_axes"]))


def mix(clean: ImageSet, poisoned: ImageSet, ratio: float, seed: int) -> ImageSet:
    """Takes a share ``ratio`` of the images from ``poisoned`` and the others from ``clean``."""
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
    chosen = order[: round(ratio * len(clean))]
    x = clean.x.clone()
    x[chosen] = poisoned.x[chosen]
    return clean.with_x(x)


def _spec(payload: Mapping[str, Any]) -> Spec:
    return Spec(payload["name"], payload["params"], payload["label"])


def _manifest(
    stage: Stage, seconds: float, facts: Mapping[str, Any], registry: Registry, kind: str
) -> dict[str, Any]:
    method = stage.payload[kind]
    card = registry.card(kind, method["name"])
    return {
        "kind": stage.kind,
        "label": stage.label,
        "method": {
            "kind": kind,
            "name": method["name"],
            "params": method["params"],
            "version": card.version,
        },
        "inputs": list(stage.inputs),
        "seconds": round(seconds, 3),
        "facts": dict(facts),
        "peak_memory_mb": peak_memory_mb(),
        "source": {_shown(card.file): _sha256(card.file)},
        "date": _now(),
    }


def _sources(registry: Registry, cell: Mapping[str, Any]) -> dict[str, str]:
    files = [ROOT / name for name in CORE_SOURCES]
    files.append(registry.card("defense", cell["defense_spec"]["name"]).file)
    attack: Mapping[str, Any] | None = cell["attack_spec"]
    while attack is not None:
        files.append(registry.card("attack", attack["name"]).file)
        attack = attack.get("then")
    files.append(registry.card("victim", cell["victim"]).file)
    return {_shown(file): _sha256(file) for file in files}


def _shown(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name


_sha256 = cache(sha256_of)  # of sources, which stay as they are while a worker lives


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
