"""Open a data set by its spec, from the cache or else from its source, whole or a subset."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import SUBSET_PARAMS, Spec
from benchmark.datasets import _cache
from benchmark.datasets._listing import listing_digest
from benchmark.keys import axis_seed, digest

if TYPE_CHECKING:
    from benchmark.api import Context
    from benchmark.data import ImageSet, Splits


@dataclass(frozen=True)
class _Entry:
    """The spec of a whole set, the identity of its source, and the file that caches it."""

    spec: Spec
    source: str
    shard: Path


def open_dataset(
    spec: Spec, root: Path, registry: Registry, ctx: Context | None = None, download: bool = False
) -> Splits:
    """Open a data set, cut to the subset that ``spec`` asks for.

    The set is read from the cache if it is there, or else built and cached.

    Args:
        spec: name and parameters; parameters that are not given take their defaults.
        root: the data folder; torchvision's sets lie in it, the cache in ``root/cache``.
        registry: finds the data set.
        ctx: threads, progress and log of the build; by default all cores and no messages.
        download: fetch a set that is not there.

    Raises:
        FileNotFoundError: if the set's files are not there; the message says how to get them.
        ValueError: if the set, its cached copy or the subset's parameters are not usable.
        OSError: if the cache cannot be written.
    """
    full = registry.resolve("dataset", spec)
    entry = _entry(full, root, registry)
    if _cache.is_complete(entry.shard):
        whole = _cache.read(entry.shard)
    else:
        whole = _build(entry, root, registry, ctx, download)
    return _subset(full, whole)


def fingerprint(
    spec: Spec, root: Path, registry: Registry, ctx: Context | None = None, download: bool = False
) -> str:
    """Return the sha256 of the whole set's images, labels and info.

    The fingerprint depends on content only: the same images in another folder, or with another
    subset, have the same one. The cache is built if there is none. Arguments and errors are those
    of ``open_dataset``.
    """
    entry = _entry(registry.resolve("dataset", spec), root, registry)
    cached = _cache.read_facts(entry.shard)
    if cached is None:
        _build(entry, root, registry, ctx, download)
        cached = _cache.read_facts(entry.shard)
        assert cached is not None
    return cached.fingerprint


def cached_facts(spec: Spec, root: Path, registry: Registry) -> _cache.CachedFacts | None:
    """Return the facts in the cache about a set; None if it was never built.

    The counts are those of the subset that ``spec`` asks for. This builds nothing and needs no
    torch.

    Raises:
        ValueError: if the set is there and has too few images for the subset that ``spec`` asks
            for, or its record is damaged.
    """
    full = registry.resolve("dataset", spec)
    found = _cache.read_facts(_entry(full, root, registry).shard)
    if found is None:
        return None
    train, test = {}, {}
    for label, there in found.class_counts["train"].items():
        held_out = _held_out(full, label, there)
        train[label] = _take(full, "train", label, there - held_out)
        test[label] = _take(full, "test", label, held_out or found.class_counts["test"][label])
    return replace(found, class_counts={"train": train, "test": test})


def _entry(full: Spec, root: Path, registry: Registry) -> _Entry:
    params = {name: value for name, value in full.params.items() if name not in SUBSET_PARAMS}
    whole = full.with_params(params)
    source = _source(whole, root, registry)
    card = registry.card("dataset", full.name)
    identity = {
        "name": full.name,
        "version": card.version,
        "params": params,
        "source": source,
        "layout": _cache.LAYOUT,
    }
    if card.content:  # the author of a plugin need not raise its version with each change
        identity["content"] = card.content
    name = digest(identity)
    return _Entry(whole, source, root / "cache" / f"{full.name}-{name[:16]}.safetensors")


def _source(spec: Spec, root: Path, registry: Registry) -> str:
    if "source_id" in registry.card("dataset", spec.name).overrides:
        return str(registry.build("dataset", spec).source_id(root))
    path = spec.params.get("path")
    if not isinstance(path, str):
        return ""
    return listing_digest(Path(path).expanduser(), skip=root / "cache")


def _build(
    entry: _Entry, root: Path, registry: Registry, ctx: Context | None, download: bool
) -> Splits:
    from benchmark.api import Context

    ctx = Context(workers=os.cpu_count() or 1) if ctx is None else ctx
    _cache.check_writable(entry.shard.parent)  # before the work, not after it
    splits: Splits = registry.build("dataset", entry.spec).load(root, ctx, download)
    if _source(entry.spec, root, registry) != entry.source:
        raise ValueError(
            f'the files of data set "{entry.spec}" changed while they were read; run again when '
            "they are at rest"
        )
    _cache.write(entry.shard, splits, entry.spec)
    ctx.log(
        f"{entry.spec.name}: {len(splits.train):,} training and {len(splits.test):,} test images "
        f"cached in {entry.shard}"
    )
    return splits


def _subset(spec: Spec, whole: Splits) -> Splits:
    from benchmark.data import Splits

    train, test = whole.train, whole.test
    if spec.params.get("validation_per_class", 0):
        train, test = _hold_out(whole.train, spec)
    return Splits(
        _per_class(train, "train", spec), _per_class(test, "test", spec), notes=whole.notes
    )


def _hold_out(data: ImageSet, spec: Spec) -> tuple[ImageSet, ImageSet]:
    """Split the last ``validation_per_class`` images of each class from the others.

    They are neighbours in the set's order, so that a series of similar images, such as the scenes
    of one digit, is not in both parts. Both parts keep the order.
    """
    import torch

    is_held_out = torch.zeros(len(data), dtype=torch.bool)
    for label, name in enumerate(data.info.class_names):
        members = (data.y == label).nonzero().flatten()
        is_held_out[members[len(members) - _held_out(spec, name, len(members)) :]] = True
    return data.select((~is_held_out).nonzero().flatten()), data.select(
        is_held_out.nonzero().flatten()
    )


def _per_class(data: ImageSet, split: str, spec: Spec) -> ImageSet:
    """Choose ``<split>_per_class`` images of each class, in their original order.

    A smaller choice is part of a larger one.
    """
    import numpy as np
    import torch

    if spec.params[f"{split}_per_class"] == 0:
        return data
    chosen = []
    for label, name in enumerate(data.info.class_names):
        members = (data.y == label).nonzero().flatten()
        count = _take(spec, split, name, len(members))
        seed = axis_seed("subset", spec.params["subset_seed"], split, label)
        order = np.random.default_rng(seed).permutation(len(members))
        chosen.append(members[torch.from_numpy(order[:count])])
    return data.select(torch.cat(chosen).sort().values)


def _held_out(spec: Spec, label: str, there: int) -> int:
    """Return how many of a class's ``there`` training images are held out for validation."""
    count = spec.params.get("validation_per_class", 0)
    assert isinstance(count, int)
    if count < 0:
        raise ValueError(f"validation_per_class={count}, expected 0 (none) or a positive number")
    if count and there <= count:
        raise ValueError(
            f'validation_per_class={count}, but class "{label}" of {spec.name} has {there} '
            f"training images, so that none would be left to train on; hold out at most {there - 1}"
        )
    return count


def _take(spec: Spec, split: str, label: str, there: int) -> int:
    """Return how many of the ``there`` images of a class the spec asks for."""
    count = spec.params[f"{split}_per_class"]
    assert isinstance(count, int)
    if count < 0:
        raise ValueError(f"{split}_per_class={count}, expected 0 (all images) or a positive number")
    if there < count:
        raise ValueError(
            f'{split}_per_class={count}, but class "{label}" of {spec.name} has {there} {split} '
            "images"
        )
    return count or there
