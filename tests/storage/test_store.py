"""The store: published files are whole, damage is named, and nothing is unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmark.data import DatasetInfo, ImageSet
from benchmark.planning.stage import Stage
from benchmark.storage.record import SCHEMA, Record
from benchmark.storage.store import Store
from support.fake_runner import make

KEY = "ab" * 32
INFO = DatasetInfo("toy", 2, ("a", "b"), 1, 2, 2, False)


def images(fill: int = 7, n: int = 6) -> ImageSet:
    return ImageSet(torch.full((n, 1, 2, 2), fill, dtype=torch.uint8), torch.arange(n) % 2, INFO)


def record(key: str = KEY, **values: Any) -> Record:
    return Record(
        key=key,
        dataset="toy",
        attack="em",
        defense="none",
        victim="v",
        protocol="quick",
        **{"test_acc": 0.5, **values},
    )


def stage(kind: str = "poison", key: str = KEY) -> Stage:
    return replace(make(kind, key), label=f"{kind} {key[:4]}")


def folder(store: Store) -> Path:
    return store.root / "artifacts" / KEY[:2] / KEY


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


def test_importing_the_store_loads_no_torch() -> None:
    code = (
        "import sys, benchmark.storage.store\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_come_back_as_they_were(store: Store) -> None:
    assert not store.is_done(stage())
    store.publish_images(KEY, images(), {"facts": {"linf": 0.03}}, {"model": {"w": torch.ones(3)}})
    back = store.load_images(KEY)
    assert torch.equal(back.x, images().x)
    assert back.fingerprint == images().fingerprint
    assert torch.equal(store.load_kept(KEY, "model")["w"], torch.ones(3))
    manifest = store.manifest(KEY)
    assert (manifest["schema"], manifest["key"], manifest["facts"]) == (1, KEY, {"linf": 0.03})
    assert set(manifest["files"]) == {"images.safetensors", "model.safetensors"}
    assert manifest["info"]["class_names"] == ["a", "b"]
    assert store.is_done(stage())
    assert store.is_done(stage("purify"))
    assert not store.is_done(stage("train"))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    first.publish_images(KEY, images(), {}, {"model": {"b": torch.ones(2), "a": torch.zeros(2)}})
    second.publish_images(KEY, images(), {}, {"model": {"a": torch.zeros(2), "b": torch.ones(2)}})
    assert first.manifest(KEY) == second.manifest(KEY)
    assert files(first) == ["images.safetensors", "manifest.json", "model.safetensors"]
    for name in files(first):
        assert (folder(first) / name).read_bytes() == (folder(second) / name).read_bytes()


def test_whoever_may_read_the_folder_may_read_its_files(store: Store) -> None:
    """safetensors itself makes files that other users of a shared store cannot read."""
    store.publish_images(KEY, images(), {}, {"model": {"w": torch.ones(3)}})
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder(store).iterdir()}
    assert modes == dict.fromkeys(modes, folder(store).stat().st_mode & 0o666)


def test_publishing_again_replaces_and_drops_what_is_no_longer_kept(store: Store) -> None:
    store.publish_images(KEY, images(1), {}, {"model": {"w": torch.ones(3)}})
    store.publish_images(KEY, images(2), {})
    assert int(store.load_images(KEY).x[0, 0, 0, 0]) == 2
    assert files(store) == ["images.safetensors", "manifest.json"]
    with pytest.raises(
        FileNotFoundError, match=r"holds no model\.safetensors; it holds images\.safetensors"
    ):
        store.load_kept(KEY, "model")


def test_strided_tensors_and_numpy_numbers_are_stored(store: Store) -> None:
    strided = ImageSet(images().x.expand(6, 1, 2, 2).transpose(2, 3), images().y, INFO)
    store.publish_images(
        KEY, strided, {"psnr": torch.tensor(3.5)}, {"m": {"w": torch.ones(2, 3).t()}}
    )
    assert store.manifest(KEY)["psnr"] == 3.5
    assert store.load_kept(KEY, "m")["w"].shape == (3, 2)


def test_a_truncated_artifact_is_named_and_not_done(store: Store) -> None:
    store.publish_images(KEY, images(), {})
    path = folder(store) / "images.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert not store.is_done(stage())
    truncated = r"images\.safetensors is truncated: it has \d+ bytes, expected \d+; "
    with pytest.raises(ValueError, match=truncated + "delete the folder"):
        store.load_images(KEY)


def test_a_flipped_byte_is_found(store: Store) -> None:
    store.publish_images(KEY, images(), {})
    path = folder(store) / "images.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    corrupt = r"images\.safetensors is corrupt: its sha256 is [0-9a-f]{64}, "
    with pytest.raises(ValueError, match=corrupt + r"expected [0-9a-f]{64}; delete"):
        store.load_images(KEY)


def test_a_deleted_file_is_named(store: Store) -> None:
    store.publish_images(KEY, images(), {})
    (folder(store) / "images.safetensors").unlink()
    assert not store.is_done(stage())
    with pytest.raises(
        FileNotFoundError, match=r"images\.safetensors is missing though its manifest lists it"
    ):
        store.load_images(KEY)


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_a_pickle_is_refused_and_never_run(store: Store, tmp_path: Path, form: str) -> None:
    store.publish_images(KEY, images(), {})
    path = folder(store) / "images.safetensors"
    trap = Trap(str(tmp_path / "sprung"))
    if form == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path)
    manifest = store.manifest(KEY)  # not even if a manifest vouches for the file
    manifest["files"]["images.safetensors"]["size"] = path.stat().st_size
    (folder(store) / "manifest.json").write_text(json.dumps(manifest))
    expected = "a pickle" if form == "pickle" else "a zip archive, as torch.save writes"
    with pytest.raises(ValueError, match=f"is {expected}, expected safetensors; it was not opened"):
        store.load_images(KEY)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"manifest .*manifest\.json is damaged"),
        ("[]", "holds a list, expected an object"),
        ("{}", "schema is None"),
        (
            '{"schema": 99, "files": {}}',
            "has schema 99, but this uebench reads up to 1; update uebench",
        ),
        ('{"schema": 1}', 'lists no "files"'),
    ],
)
def test_a_damaged_manifest_is_named_and_not_done(store: Store, content: str, message: str) -> None:
    store.publish_images(KEY, images(), {})
    (folder(store) / "manifest.json").write_text(content)
    assert not store.is_done(stage())
    with pytest.raises(ValueError, match=message):
        store.load_images(KEY)


def test_what_is_absent_is_said_to_be_absent(store: Store) -> None:
    with pytest.raises(FileNotFoundError, match="there is no manifest"):
        store.load_images(KEY)
    with pytest.raises(FileNotFoundError, match="there is no record"):
        store.record(KEY)
    assert store.failure(KEY) is None
    assert list(store.records()) == []
    assert not store.root.exists(), "looking must not make folders"


def test_keys_and_names_cannot_leave_the_store(store: Store) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        store.record("../../etc")
    with pytest.raises(ValueError, match="cannot keep tensors as"):
        store.publish_images(KEY, images(), {}, {"../x": {"w": torch.ones(1)}})
    with pytest.raises(ValueError, match="cannot keep tensors as"):
        store.publish_images(KEY, images(), {}, {"images": {"w": torch.ones(1)}})
    assert files(store) == []


def test_records_come_back_sorted(store: Store) -> None:
    second = "cd" * 32
    store.publish_record(record(second, curve=(0.1, 0.5)))
    store.publish_record(record())
    assert [item.key for item in store.records()] == [KEY, second]
    assert store.record(second) == record(second, curve=(0.1, 0.5))
    assert store.is_done(stage("train"))
    assert not store.is_done(stage("poison"))


def test_a_newer_or_damaged_record_is_named(store: Store) -> None:
    store.publish_record(record())
    path = store.root / "records" / KEY[:2] / f"{KEY}.json"
    good = json.loads(path.read_text())
    for content, message in [
        (
            {**good, "schema": SCHEMA + 1},
            f"cannot read .*{KEY}.json: the record has schema {SCHEMA + 1}.*update uebench",
        ),
        ({"schema": SCHEMA, "key": KEY}, "incomplete record"),
        ({**good, "key": "cd" * 32}, "holds the record of cdcd"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            list(store.records())
    path.write_text(json.dumps(good)[:40])
    with pytest.raises(
        ValueError, match=rf"the record .*{KEY}\.json is damaged .*; delete it and run again"
    ):
        store.record(KEY)


def test_a_failed_or_nan_record_is_not_published(store: Store) -> None:
    with pytest.raises(ValueError, match="publish it with publish_failure"):
        store.publish_record(record(status="failed", test_acc=None))
    with pytest.raises(ValueError, match="finite numbers only"):
        store.publish_record(record(loss_curve=(float("nan"),)))
    assert files(store) == []


def test_a_failure_is_kept_but_never_counts_as_done(store: Store) -> None:
    failed = record(status="failed", test_acc=None, error="boom")
    store.publish_failure(KEY, "train em + none", "boom", "Traceback ...", failed)
    assert not store.is_done(stage("train"))
    (found,) = store.failures()
    assert found == store.failure(KEY)
    assert (found["label"], found["error"], found["traceback"]) == (
        "train em + none",
        "boom",
        "Traceback ...",
    )
    assert Record.from_json(found["record"]) == failed
    store.clear_failure(KEY)
    store.clear_failure(KEY)
    assert list(store.failures()) == []


def test_scratch_survives_until_dropped(store: Store) -> None:
    (store.scratch(KEY) / "state").write_text("x")
    assert (store.scratch(KEY) / "state").read_text() == "x"
    store.drop_scratch(KEY)
    store.drop_scratch(KEY)
    assert files(store) == []


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_no_half_file_and_keeps_the_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish_images(KEY, images(1), {})
    before = files(store)
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(
        OSError, match=rf"cannot write to .*{KEY}: the disk is full.*free some space"
    ) as caught:
        store.publish_images(KEY, images(2), {})
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"cannot write to .*records.*the disk is full"):
        store.publish_record(record())
    with pytest.raises(OSError, match=f"cannot write to {store.root}: the disk is full"):
        store.check_writable()
    assert files(store) == before
    assert store.is_done(stage())
    assert int(store.load_images(KEY).x[0, 0, 0, 0]) == 1


def test_a_disk_that_fills_up_at_the_second_file_leaves_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            _no_space()

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OSError, match="the disk is full"):
        store.publish_images(KEY, images(), {}, {"model": {"w": torch.ones(3)}})
    assert files(store) == []
    assert not store.is_done(stage())


def test_a_read_only_store_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(
        OSError,
        match=f"cannot write to {store.root}: the folder is read-only .*choose another store",
    ):
        store.check_writable()
    with pytest.raises(OSError, match="the folder is read-only"):
        store.scratch(KEY)


def test_a_file_in_the_stores_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        OSError, match=r"file/store: a file stands where a folder should be; move it away"
    ):
        Store(tmp_path / "file" / "store").check_writable()


def test_a_writable_store_is_left_clean(store: Store) -> None:
    store.check_writable()
    assert files(store) == []


def test_leftovers_of_killed_processes_are_ignored_and_swept(store: Store) -> None:
    store.publish_record(record())
    code = f"""
import os, pathlib, signal
from benchmark.storage import atomic
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
atomic.publish(pathlib.Path({str(store.root)!r}) / "records" / "ab" / "{KEY}.json", b"half")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    folder = store.root / "records" / "ab"
    (dead,) = folder.glob(".*.tmp")
    alive = dead.with_name(dead.name.replace(dead.name.split("~")[2], str(os.getpid())))
    alive.write_text("being written")
    elsewhere, old = (folder / f".x.json~other-{name}~1~0.tmp" for name in ("new", "old"))
    elsewhere.write_text("x")
    old.write_text("x")
    os.utime(old, (0, 0))
    assert [item.key for item in store.records()] == [KEY]
    assert store.sweep() == 2
    assert sorted(folder.glob(".*.tmp")) == sorted([alive, elsewhere])


def test_stored_files_open_with_plain_safetensors(store: Store) -> None:
    store.publish_images(KEY, images(), {})
    assert set(load_file(folder(store) / "images.safetensors")) == {"x", "y"}


def test_an_older_record_is_written_as_it_was() -> None:
    """Its bytes do not depend on fields that came later."""
    old = Path(__file__).parents[1] / "golden" / f"record-schema-{SCHEMA}.json"
    read = Record.from_json(json.loads(old.read_text("utf-8")))
    assert not {"identity", "cpu_seconds", "device_seconds"} & set(read.to_json())
    assert replace(read, cpu_seconds={"train": 1.5}).to_json()["cpu_seconds"] == {"train": 1.5}
    assert replace(read, identity={"stage": "train"}).to_json()["identity"] == {"stage": "train"}
