"""Store images, records and failures by key, published atomically.

Layout under the root::

    artifacts/<key[:2]>/<key>/images.safetensors, <kept name>.safetensors, manifest.json
    records/<key[:2]>/<key>.json
    failures/<key>.json
    scratch/<key>/

A file appears under its name only when it is whole: the store writes it under a temporary name,
syncs it and renames it. A manifest is written last, so that its existence means that the stage is
done. Images are safetensors files and the rest is JSON; the store never unpickles anything.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any, Protocol

from benchmark.storage.atomic import (
    check_schema,
    explained,
    is_abandoned,
    json_bytes,
    publish,
    rename,
    tensor_file,
    write_temporary,
)
from benchmark.storage.files import check_file, sha256_of
from benchmark.storage.record import Record, read_record, read_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.data import ImageSet

SCHEMA = 1  # of manifests and failures
IMAGES = "images.safetensors"
MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class Keyed(Protocol):
    """A stage of a plan, as far as the store looks at it."""

    @property
    def kind(self) -> str: ...

    @property
    def key(self) -> str: ...


class Store:
    """All results of all runs under one folder, for several processes and machines at once.

    Making a ``Store`` touches no file; the first write makes the folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # What is there

    def is_done(self, stage: Keyed) -> bool:
        """Whether the result of ``stage`` is there, by the names and sizes of its files."""
        if stage.kind == "train":
            return self.has_record(stage.key)
        try:
            files = self.manifest(stage.key)["files"]
            return all(
                (self._folder(stage.key) / name).stat().st_size == entry["size"]
                for name, entry in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # absent or unreadable: the stage runs again and replaces it

    def has_record(self, key: str) -> bool:
        """Whether there is a record of the cell ``key``."""
        return self._record_file(key).is_file()

    # Artifacts

    def publish_images(
        self,
        key: str,
        images: ImageSet,
        manifest: Mapping[str, Any],
        kept: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Publish the images of a stage and the tensors it kept; see ``publish``.

        The manifest also gets the ``info`` of the images.
        """
        if "images" in (kept or {}):
            raise ValueError('cannot keep tensors as "images"; expected a plain name such as model')
        self.publish(
            key,
            {"images": {"x": images.x, "y": images.y}, **(kept or {})},
            {**manifest, "info": asdict(images.info)},
        )

    def publish(
        self, key: str, tensors: Mapping[str, Mapping[str, Tensor]], manifest: Mapping[str, Any]
    ) -> None:
        """Publish the tensors of a stage under ``key``, a file for each name.

        ``manifest`` is plain JSON; the store adds ``schema``, ``key`` and ``files`` (size and
        sha256 of each). The same content gives the same bytes. What an earlier run published under
        the key is replaced at the end, or stays if this fails.

        Raises:
            OSError: if the store cannot be written; no half-written file is left.
            ValueError: if a name is not a plain file name, or if ``json_bytes`` refuses the
                manifest.
        """
        for name in tensors:
            if not _NAME.fullmatch(name) or name == "manifest":
                raise ValueError(
                    f'cannot keep tensors as "{name}"; expected a plain name such as model, and '
                    "not images or manifest"
                )
        folder = self._folder(key)
        waiting: dict[str, Path] = {}
        files: dict[str, dict[str, str | int]] = {}
        try:
            for name, values in tensors.items():
                file = f"{name}.safetensors"
                waiting[file] = write_temporary(folder / file, tensor_file(values))
                files[file] = {
                    "sha256": sha256_of(waiting[file]),
                    "size": waiting[file].stat().st_size,
                }
            full = {**manifest, "schema": SCHEMA, "key": key, "files": files}
            waiting[MANIFEST] = write_temporary(
                folder / MANIFEST, json_bytes(full, folder / MANIFEST)
            )
            self._replace_artifact(folder, waiting)
        finally:
            for path in waiting.values():
                path.unlink(missing_ok=True)

    def _replace_artifact(self, folder: Path, waiting: Mapping[str, Path]) -> None:
        """Rename the files ``waiting`` (name -> written file) to their names.

        The old manifest goes first, so that it never describes new files.
        """
        (folder / MANIFEST).unlink(missing_ok=True)
        for name, path in waiting.items():  # the manifest is the last of them
            rename(path, folder / name)
        for other in folder.glob("*.safetensors"):
            if other.name not in waiting:
                other.unlink(missing_ok=True)

    def take_artifact(self, key: str, source: Store) -> None:
        """Check each file of the artifact ``key`` in another store, and copy the artifact here.

        It replaces an artifact of this key that is here already.

        Raises:
            FileNotFoundError: if ``source`` lacks the artifact or a file of it.
            ValueError: if a file is damaged, or if ``publish`` would not give it its name.
            OSError: if this store cannot be written; no half-written file is left.
        """
        manifest, folder = source.manifest(key), self._folder(key)
        waiting: dict[str, Path] = {}
        try:
            for name in manifest["files"]:
                if not _NAME.fullmatch(name) or not name.endswith(".safetensors"):
                    raise ValueError(
                        f'the manifest of {key} in {source.root} lists the file "{name}", '
                        "expected a plain name.safetensors"
                    )
                waiting[name] = write_temporary(
                    folder / name, partial(copyfile, source._checked(key, name, manifest))
                )
            waiting[MANIFEST] = write_temporary(
                folder / MANIFEST, json_bytes(manifest, folder / MANIFEST)
            )
            self._replace_artifact(folder, waiting)
        finally:
            for path in waiting.values():
                path.unlink(missing_ok=True)

    def load_images(self, key: str) -> ImageSet:
        """The images published under ``key``, on the CPU.

        Raises:
            FileNotFoundError: if there are no images under ``key``.
            ValueError: if the file is truncated, corrupt, or not a safetensors file.
        """
        from safetensors.torch import load_file

        from benchmark.data import DatasetInfo, ImageSet

        manifest = self.manifest(key)
        tensors = load_file(self._checked(key, IMAGES, manifest))
        return ImageSet(tensors["x"], tensors["y"], DatasetInfo.from_json(manifest["info"]))

    def image_keys(self) -> dict[str, str]:
        """The key of all published images, by their sha256. Reads manifests only."""
        keys = {}
        for path in sorted((self.root / "artifacts").glob(f"*/*/{MANIFEST}")):
            try:
                entry = self.manifest(path.parent.name)["files"][IMAGES]
                if (path.parent / IMAGES).stat().st_size == entry["size"]:
                    keys[str(entry["sha256"])] = path.parent.name
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged, or an artifact without images such as a surrogate
        return keys

    def sample_images(self, key: str, count: int) -> NDArray[np.uint8]:
        """Read ``count`` evenly spaced images of those published under ``key``: (count, C, H, W).

        The rest of the file is not read, so that its sha256 is not checked. Two sets of the same
        length give images of the same positions.

        Raises:
            FileNotFoundError: if there are no images under ``key``.
            ValueError: if the file is not a safetensors file.
        """
        import numpy as np
        from safetensors import SafetensorError, safe_open

        path = self._folder(key) / IMAGES
        try:
            with safe_open(path, framework="numpy") as file:
                x = file.get_slice("x")
                total = x.get_shape()[0]
                return np.stack([x[total * i // count] for i in range(count)])
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged: {error}; delete the folder {path.parent} and run again"
            ) from error

    def load_kept(self, key: str, name: str) -> dict[str, Tensor]:
        """The tensors that the stage ``key`` kept as ``name``. Raises what ``load_images`` does."""
        from safetensors.torch import load_file

        return load_file(self._checked(key, f"{name}.safetensors"))

    def manifest(self, key: str) -> dict[str, Any]:
        """Read the manifest of the artifact ``key``.

        Raises:
            FileNotFoundError: if nothing was published under ``key``.
            ValueError: if the manifest is damaged or of a newer schema.
        """
        path = self._folder(key) / MANIFEST
        manifest = read_result(path, "manifest")
        check_schema(manifest, SCHEMA, str(path), "delete it and run again")
        if not isinstance(manifest.get("files"), dict):
            raise ValueError(
                f'{path} is damaged: it lists no "files"; delete the folder {path.parent} and run '
                "again"
            )
        return manifest

    def manifests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and manifest of every artifact, sorted by key; skip damaged ones."""
        for path in sorted((self.root / "artifacts").glob(f"*/*/{MANIFEST}"), key=str):
            with suppress(ValueError, OSError):
                yield path.parent.name, self.manifest(path.parent.name)

    def _checked(self, key: str, name: str, manifest: Mapping[str, Any] | None = None) -> Path:
        """Check kind, size and sha256 of one file of an artifact, and return its path."""
        path = self._folder(key) / name
        files = (manifest or self.manifest(key))["files"]
        if name not in files:
            raise FileNotFoundError(
                f"the artifact {key} holds no {name}; it holds {', '.join(sorted(files))}"
            )
        check_file(path, files[name], f"delete the folder {path.parent} and run again")
        return path

    # Records

    def publish_record(self, record: Record) -> None:
        """Publish the record of a finished cell.

        Raises:
            ValueError: if the record is a failed one (see ``publish_failure``) or holds NaN.
            OSError: if the store cannot be written.
        """
        if record.status != "ok":
            raise ValueError(
                f'the record of {record.key} has status "{record.status}"; publish it with '
                "publish_failure"
            )
        path = self._record_file(record.key)
        publish(path, json_bytes(record.to_json(), path))

    def record(self, key: str) -> Record:
        """Read the record of a cell.

        Raises:
            FileNotFoundError: if there is no record of the cell.
            ValueError: if the file is damaged or of a newer schema; the message names it.
        """
        return read_record(self._record_file(key))

    def records(self) -> Iterator[Record]:
        """Yield all records of finished cells, sorted by key. Raises what ``record`` does."""
        for path in sorted((self.root / "records").glob("*/*.json"), key=str):
            yield read_record(path)

    # Failures

    def publish_failure(
        self, key: str, label: str, error: str, traceback: str, record: Record | None
    ) -> None:
        """Keep why a stage failed, and the failed record of its cell if it has one.

        A failure never counts as done.
        """
        path = self.failure_file(key)
        content = {
            "schema": SCHEMA,
            "key": key,
            "label": label,
            "error": error,
            "traceback": traceback,
            "record": None if record is None else record.to_json(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        publish(path, json_bytes(content, path))

    def failure(self, key: str) -> dict[str, Any] | None:
        """Read what ``publish_failure`` kept of ``key``; None if there is no failure."""
        path = self.failure_file(key)
        try:
            content = read_result(path, "failure")
        except FileNotFoundError:
            return None
        check_schema(content, SCHEMA, str(path), "delete it and run again")
        return content

    def failures(self) -> Iterator[dict[str, Any]]:
        """Yield all failures, sorted by key."""
        for path in sorted((self.root / "failures").glob("*.json")):
            content = self.failure(path.stem)
            if content is not None:
                yield content

    def failure_file(self, key: str) -> Path:
        """The file that ``publish_failure`` writes for ``key``."""
        return self.root / "failures" / f"{_checked_key(key)}.json"

    def clear_failure(self, key: str) -> None:
        """Delete the failure of ``key``, if there is one."""
        self.failure_file(key).unlink(missing_ok=True)

    # Scratch and housekeeping

    def scratch(self, key: str) -> Path:
        """Make the working folder of one stage, which survives a killed run."""
        path = self.root / "scratch" / _checked_key(key)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, path) from error
        return path

    def drop_scratch(self, key: str) -> None:
        """Delete the working folder of one stage, if there is one."""
        shutil.rmtree(self.root / "scratch" / _checked_key(key), ignore_errors=True)

    def check_writable(self) -> None:
        """Write and delete one megabyte, so that a run can stop before its first stage.

        Raises:
            OSError: if the store is read-only or full; the message names the folder.
        """
        write_temporary(self.root / "probe", bytes(1 << 20)).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete the temporary files of processes that are gone, and return how many."""
        deleted = 0
        for path in self.root.glob("**/.*.tmp"):
            if is_abandoned(path):
                path.unlink(missing_ok=True)
                deleted += 1
        return deleted

    def _folder(self, key: str) -> Path:
        return self.root / "artifacts" / _checked_key(key)[:2] / key

    def _record_file(self, key: str) -> Path:
        return self.root / "records" / _checked_key(key)[:2] / f"{key}.json"


def _checked_key(key: str) -> str:
    if not _NAME.fullmatch(key):
        raise ValueError(f'"{key}" is not a key; expected the hex digits of a sha256')
    return key
