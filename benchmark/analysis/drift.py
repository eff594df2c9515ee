"""The exact lane of a night: compare a run with the accepted run that it must equal.

``twin`` finds that accepted run, ``drift`` describes in words what differs, and
``changed_settings`` lists settings that differ. ``percent`` and ``points`` format numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.analysis.cells import accuracy, numeric_environment
from benchmark.analysis.changed_code import changed_files
from benchmark.analysis.naming import flat
from benchmark.storage.record import Record


def drift(pairs: Iterable[tuple[Record, Record | None]]) -> str:
    """Describe the differences between runs and their twins; empty if there are none."""
    return "; ".join(
        f"seed {run.seed}: {text}"
        for run, twin in pairs
        if twin is not None and (text := _differences(run, twin))
    )


def _differences(run: Record, twin: Record) -> str:
    parts = [f"setting {text}" for text in changed_settings(run, twin)]
    if run.test_acc != twin.test_acc:
        before, after = accuracy(twin), accuracy(run)
        parts.append(f"accuracy {percent(before)} to {percent(after)} ({points(after - before)})")
    if run.train_acc != twin.train_acc:
        parts.append(f"training accuracy {run.train_acc} for {twin.train_acc}")
    if run.curve != twin.curve:
        pairs = zip(run.curve, twin.curve, strict=False)
        same = next(
            (epoch for epoch, (ours, theirs) in enumerate(pairs) if ours != theirs),
            min(len(run.curve), len(twin.curve)),
        )
        parts.append(f"curve differs from epoch {same + 1} on")
    parts += [f"{name} images differ" for name in _changed(twin.artifacts, run.artifacts)]
    if parts and (sources := changed_files(twin, run)):
        parts.append(f"code changed: {' '.join(sources)}")
    return ", ".join(parts)


def twin(run: Record, accepted: Sequence[Record]) -> Record | None:
    """The newest accepted run that ``run`` must equal to the last bit, or None.

    It has the same seeds and the same numeric environment. Only runs on a CPU have a twin.
    """
    if run.environment.get("device_type") != "cpu":
        return None
    place = run.seed, run.craft_seed, numeric_environment(run)
    same = (
        other
        for other in accepted
        if (other.seed, other.craft_seed, numeric_environment(other)) == place
    )
    return max(same, key=lambda other: other.date, default=None)


def changed_settings(run: Record, other: Record) -> list[str]:
    """The settings in which ``run`` differs from ``other``, as ``attack_spec.version: 1 to 2``."""
    names = ("dataset_spec", "attack_spec", "defense_spec", "protocol_spec", "precision")
    old, new = (flat({name: getattr(record, name) for name in names}) for record in (other, run))
    return [
        f"{name}: {old.get(name, 'unset')} to {new.get(name, 'unset')}"
        for name in _changed(old, new)
    ]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys at which two mappings differ."""
    return [
        name
        for name in sorted({*old, *new})
        if name not in old or name not in new or old[name] != new[name]
    ]


def percent(share: float) -> str:
    """A share in [0, 1] as ``74.10 %``."""
    return f"{100 * share:.2f} %"


def points(difference: float) -> str:
    """A difference of shares as ``+1.20 points``."""
    return f"{100 * difference:+.2f} points"
