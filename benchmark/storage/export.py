"""Write a poisoned or purified training set for use elsewhere.

The forms are a folder of PNG files, ``images.npz`` and ``perturbation.pt``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from PIL import Image

from benchmark.data import ImageSet, Splits

FORMATS = ("png", "npz", "pt")


def export(
    out: Path,
    form: str,
    images: ImageSet,
    source: Splits,
    facts: Mapping[str, Any],
    on_progress: Callable[[float, str], None] | None = None,
) -> None:
    """Write a set and its ``manifest.json`` into the new folder ``out``, whole or not at all.

    - ``png``: ``train/<class>/<position>.png``, and the unchanged test images under ``test/``.
      ``folder[path=...]`` reads the folder again.
    - ``npz``: ``images.npz`` with ``images`` uint8 (N, H, W, C) and ``labels`` int64 (N,). If no
      image was left out, also ``perturbation`` int16 (N, H, W, C), the change in levels.
    - ``pt``: ``perturbation.pt``, the change as float32 (N, C, H, W) in [0, 1] units, signed, in
      the order of the training set. EM and others publish theirs in this form.
      ``torch.load(..., weights_only=True)`` reads it.

    Args:
        out: the folder to make.
        form: one of ``FORMATS``.
        images: what the method made of ``source.train``.
        source: the data set that the images were made from.
        facts: plain JSON for the manifest, which also holds the form, the count and the sha256 of
            the images.
        on_progress: gets the share that is done, in [0, 1], and a text.

    Raises:
        FileExistsError: if ``out`` is there and not an empty folder.
        ValueError: for an unknown form, a class name that cannot be a folder, or ``pt`` of a set
            with images left out.
        OSError: if ``out`` cannot be written.
    """
    if form not in FORMATS:
        raise ValueError(f'unknown format "{form}"; expected {", ".join(FORMATS)}')
    check_new(out)
    whole = len(images) == len(source.train)
    if form == "pt" and not whole:
        raise ValueError(
            f"{len(images)} of {len(source.train)} images were kept, so there is no perturbation "
            "for each; take png or npz"
        )
    part = out.with_name(f".{out.name}.{uuid4().hex}")
    part.mkdir()
    try:
        if form == "png":
            _write_pngs(part, images, source.test, on_progress)
        elif form == "npz":
            arrays: dict[str, Any] = {"images": _rows(images.x), "labels": images.y.numpy()}
            if whole:
                arrays["perturbation"] = _rows(images.x.short() - source.train.x.short())
            np.savez(part / "images.npz", **arrays)
        else:
            torch.save((images.x.short() - source.train.x.short()) / 255, part / "perturbation.pt")
        manifest = {
            **facts,
            "format": form,
            "images": len(images),
            "of": len(source.train),
            "sha256": images.fingerprint,
        }
        (part / "manifest.json").write_text(
            json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8"
        )
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(out: Path) -> None:
    """Make the parent folder of ``out``, and check that ``out`` can be made there.

    Raises:
        FileExistsError: if ``out`` is there and not an empty folder.
        OSError: if no folder can be made beside ``out``.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise FileExistsError(
            f"{out} is there already and not an empty folder; choose a new one with --out"
        )
    probe = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OSError(
            f"cannot write beside {out} ({error}); choose another folder with --out"
        ) from error


def _rows(x: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Reorder (N, C, H, W) to (N, H, W, C)."""
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def _write_pngs(
    top: Path, train: ImageSet, test: ImageSet, on_progress: Callable[[float, str], None] | None
) -> None:
    names = train.info.class_names
    for name in names:
        # reading the folder again skips hidden folders
        hidden = not name.strip() or name.startswith(".")
        is_path = any(mark in name for mark in "/\\\0")
        if hidden or is_path or len(name.encode()) > 255 or names.count(name) > 1:
            raise ValueError(
                f'the class name "{name}" cannot be the name of a folder of its own; take npz or pt'
            )
    for name, count in zip(names, train.y.bincount(minlength=len(names)).tolist(), strict=True):
        if count == 0:
            raise ValueError(
                f'no image of class "{name}" is left, so the folder would not be a data set; take '
                "npz"
            )
        for split in ("train", "test"):
            (top / split / name).mkdir(parents=True)
    total = len(train) + len(test)
    done = 0
    # threads suffice, since Pillow releases the interpreter lock while it compresses
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for split, data in (("train", train), ("test", test)):
            rows = _rows(data.x)
            jobs = [
                (top / split / names[label] / f"{i:06d}.png", rows[i])
                for i, label in enumerate(data.y.tolist())
            ]
            for _ in pool.map(_write_png, jobs):
                done += 1
                if on_progress is not None and done % 64 == 0:
                    on_progress(done / total, f"writing {total:,} images")


def _write_png(job: tuple[Path, np.ndarray[Any, np.dtype[Any]]]) -> None:
    path, row = job
    Image.fromarray(row.squeeze(-1) if row.shape[-1] == 1 else row).save(path)
