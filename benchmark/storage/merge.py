"""Copy the results of another machine's store into this one, and overwrite nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmark.storage.record import Record
from benchmark.storage.store import MANIFEST, Store

KEY = re.compile(r"[0-9a-f]{64}")


@dataclass
class Merged:
    """What ``merge_store`` did with the content of the other store.

    Attributes:
        records, artifacts: how many were copied.
        present: how many were here already, with the same numbers or files.
        conflicts: results whose key is here with other numbers; what was here stays. One sentence
            each.
        refused: files that cannot be read or lead out of the store; they were not copied. One
            sentence each.
    """

    records: int = 0
    artifacts: int = 0
    present: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def merge_store(into: Store, source: Store, artifacts: bool = False) -> Merged:
    """Copy into the store ``into`` the records of ``source`` that it lacks.

    With ``artifacts`` the artifacts that it lacks are copied too. ``source`` stays as it is.

    A key stands for everything that decides a result. Two records of one key agree if their
    accuracies, losses and curves are the same to the last digit; machine, date and seconds may
    differ. Failures are not copied: a failed cell runs again in the store that lacks it.

    Raises:
        ValueError: if both are the same store, or ``source`` holds nothing.
        OSError: if ``into`` cannot be written. What was copied stays, and calling again copies the
            rest.
    """
    if source.root.resolve() == into.root.resolve():
        raise ValueError(
            f"{source.root} cannot be merged into itself; name the results of another machine"
        )
    if not any((source.root / name).is_dir() for name in ("records", "artifacts")):
        raise ValueError(
            f"{source.root} holds no records; expected a folder of results, in which a run has "
            "made store/records"
        )
    merged = Merged()
    for key in _keys(source, "records/*/*.json", merged):
        try:
            _merge_record(source.record(key), into, source, merged)
        except ValueError as error:
            # damaged, or of a newer schema; the other records are copied nevertheless
            merged.refused.append(str(error))
    for key in _keys(source, f"artifacts/*/*/{MANIFEST}", merged) if artifacts else ():
        try:
            _merge_artifact(key, into, source, merged)
        except (ValueError, FileNotFoundError) as error:
            merged.refused.append(str(error))
    return merged


def _keys(store: Store, pattern: str, merged: Merged) -> Iterator[str]:
    """Yield the keys of the files that match ``pattern``.

    A file that does not lie under its key, or that leads out of the store, is noted as refused.
    """
    root = store.root.resolve()
    for path in sorted(store.root.glob(pattern)):
        key = path.parent.name if path.name == MANIFEST else path.stem
        folder = path.parent.parent if path.name == MANIFEST else path.parent
        if not KEY.fullmatch(key) or folder.name != key[:2]:
            merged.refused.append(
                f"{path} does not lie under a key; expected 64 hex digits, in a folder of the "
                "first two"
            )
        elif any(
            not file.resolve().is_relative_to(root)
            for file in (path, *path.parent.glob("*.safetensors"))
        ):
            merged.refused.append(f"{path} leads out of the store by a link; copy the file itself")
        else:
            yield key


def _merge_record(record: Record, into: Store, source: Store, merged: Merged) -> None:
    if not into.has_record(record.key):
        into.publish_record(record)
        into.clear_failure(record.key)
        merged.records += 1
        return
    here = into.record(record.key)
    if _numbers(here) == _numbers(record):
        merged.present += 1
        return
    what = (
        f"{record.dataset} / {record.attack} / {record.defense} / {record.victim} / "
        f"{record.protocol} / seed {record.seed}"
    )
    merged.conflicts.append(
        f"{what} ({record.key[:12]}): {_accuracy(here)} here, {_accuracy(record)} in "
        f"{source.root}; the one here stays. "
        "The same settings gave two results: see the environments of the two records"
    )


def _numbers(record: Record) -> tuple[object, ...]:
    return record.test_acc, record.train_acc, record.curve, record.loss_curve


def _accuracy(record: Record) -> str:
    return "no accuracy" if record.test_acc is None else f"{100 * record.test_acc:.2f} %"


def _merge_artifact(key: str, into: Store, source: Store, merged: Merged) -> None:
    theirs = source.manifest(key)["files"]
    try:
        ours = into.manifest(key)["files"]
    except FileNotFoundError:
        into.take_artifact(key, source)
        merged.artifacts += 1
        return
    if ours == theirs:
        merged.present += 1
    else:
        merged.conflicts.append(
            f"the images of {key[:12]} here and in {source.root} differ; those here stay"
        )
