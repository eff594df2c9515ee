"""Cache a data set as a safetensors shard and a JSON file of facts.

The JSON file is written last, so its existence means that the shard is whole. Reading it needs no
torch, so that the planner can name the data quickly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmark.catalogue.spec import Spec
from benchmark.keys import digest
from benchmark.storage.atomic import Content, publish, read_object, tensor_file
from benchmark.storage.files import sha256_of

if TYPE_CHECKING:
    from benchmark.data import DatasetInfo, ImageSet, Splits

LAYOUT = 3  # of the two files; it is part of their name, so that two layouts never meet
_FACTS = {
    "fingerprint": str,
    "size": int,
    "sha256": str,
    "info": dict,
    "notes": dict,
    "class_counts": dict,
}


def is_complete(shard: Path) -> bool:
    """Tell whether the shard and its JSON file are there."""
    return shard.is_file() and _facts_file(shard).is_file()


@dataclass(frozen=True)
class CachedFacts:
    """The recorded facts about a cached set.

    Attributes:
        fingerprint: sha256 of its content.
        notes: see ``Splits``.
        class_counts: split -> class -> number of images.
        fields: the fields of its ``DatasetInfo``, whose module needs torch.
    """

    fingerprint: str
    notes: Mapping[str, int | str]
    class_counts: Mapping[str, Mapping[str, int]]
    fields: Mapping[str, Any]

    @property
    def info(self) -> DatasetInfo:
        """The description of the set's images and classes."""
        from benchmark.data import DatasetInfo

        return DatasetInfo.from_json(self.fields)


def read_facts(shard: Path) -> CachedFacts | None:
    """Return the recorded facts about the cached set; None if it was never built.

    Raises:
        ValueError: if the JSON file is damaged.
    """
    facts = _facts(shard)
    if facts is None:
        return None
    return CachedFacts(facts["fingerprint"], facts["notes"], facts["class_counts"], facts["info"])


def read(shard: Path) -> Splits:
    """Read the cached set; the images stay on disk until they are used.

    Each process checks the bytes of a shard once.

    Raises:
        ValueError: if one of the two files is truncated or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from benchmark.data import DatasetInfo, ImageSet, Splits

    facts = _facts(shard)
    assert facts is not None
    size = shard.stat().st_size
    if size != facts["size"]:
        raise ValueError(
            f"{shard} has {size:,} bytes, expected {facts['size']:,}: it is truncated; {_ADVICE}"
        )
    _check_bytes(shard, shard.stat().st_mtime_ns, facts["sha256"])
    try:
        tensors = load_file(shard)
        info = DatasetInfo.from_json(facts["info"])
        train = ImageSet(tensors["train_x"], tensors["train_y"], info)
        test = ImageSet(tensors["test_x"], tensors["test_y"], info)
        return Splits(train, test, notes=facts["notes"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{shard} is damaged ({error}); {_ADVICE}") from error


def write(shard: Path, splits: Splits, spec: Spec) -> None:
    """Publish the set; other processes see the old files, no files, or the whole new ones.

    Raises:
        ValueError: if an earlier copy of the same set was recorded with other content.
        OSError: if the folder cannot be written.
    """
    import torch

    found = digest([splits.train.fingerprint, splits.test.fingerprint])
    earlier = read_facts(shard)
    if earlier is not None and earlier.fingerprint != found:  # keys hold the recorded content
        raise ValueError(
            f'data set "{spec}" was built again and its images differ from the earlier ones (a '
            "library may have changed); "
            f"delete {_facts_file(shard)} to accept the new images"
        )
    train, test = splits.train, splits.test
    tensors = {"train_x": train.x.contiguous(), "train_y": train.y.contiguous()}
    # safetensors refuses tensors that share memory, as the two parts of one array may do. The test
    # images are copied, since they are fewer.
    tensors |= {
        "test_x": test.x.clone(memory_format=torch.contiguous_format),
        "test_y": test.y.clone(),
    }
    _publish(shard, tensor_file(tensors))
    facts = {
        "spec": {"name": spec.name, "params": dict(spec.params)},
        "fingerprint": found,
        "size": shard.stat().st_size,
        "sha256": sha256_of(shard),
        "class_counts": {"train": _class_counts(train), "test": _class_counts(test)},
        "info": asdict(splits.info),
        "notes": dict(splits.notes),
    }
    _publish(_facts_file(shard), json.dumps(facts, indent=1).encode())


def _class_counts(data: ImageSet) -> dict[str, int]:
    counts = data.y.bincount(minlength=data.info.num_classes).tolist()
    return dict(zip(data.info.class_names, counts, strict=True))


def check_writable(folder: Path) -> None:
    """Make the folder and try to write a file in it.

    Raises:
        OSError: if files cannot be made in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write into the cache folder {folder} ({error}); choose another data folder "
            "with --data-root"
        ) from error


@cache
def _check_bytes(shard: Path, changed: int, sha256: str) -> None:
    """Compare a shard's bytes with their sha256, once in each process.

    They are read again after an error, or if ``changed``, the time of the last change, differs.
    """
    if sha256_of(shard) != sha256:
        raise ValueError(
            f"{shard} is damaged (its bytes are not those that were written); {_ADVICE}"
        )


_ADVICE = "delete it, and it is built again"


def _facts_file(shard: Path) -> Path:
    return shard.with_suffix(".json")


def _facts(shard: Path) -> dict[str, Any] | None:
    file = _facts_file(shard)
    try:
        facts = read_object(file, _ADVICE)
    except FileNotFoundError:
        return None
    whole = all(isinstance(facts.get(name), kind) for name, kind in _FACTS.items())
    if not whole or not all(
        isinstance(facts["class_counts"].get(split), dict) for split in ("train", "test")
    ):
        raise ValueError(f"{file} is damaged (expected the fields {', '.join(_FACTS)}); {_ADVICE}")
    return facts


def _publish(file: Path, content: Content) -> None:
    try:
        publish(file, content)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(
            f"cannot write {file} ({reason}); free space there, or choose another data folder "
            "with --data-root"
        ) from error
