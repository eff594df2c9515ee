"""List the files of a folder without opening them, to name the source of a data set.

This module needs no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Item(NamedTuple):
    """One file or folder.

    Attributes:
        path: relative to the listed folder, with ``/``.
        is_folder: whether it is a folder.
        size: in bytes; -1 if the file cannot be looked at.
        mtime_ns: when the file changed last, in nanoseconds.
    """

    path: str
    is_folder: bool
    size: int
    mtime_ns: int


def list_folder(folder: Path, skip: Path | None = None) -> list[Item]:
    """List every file and folder below ``folder``, sorted by path.

    Hidden names and ``skip`` are left out.

    Raises:
        ValueError: if a link leads to a folder or out of ``folder``; the set would then hold files
            from elsewhere.
    """
    top = folder.resolve()
    left_out = str(skip.resolve()) if skip is not None else ""
    return sorted(_walk(str(top), "", str(top), left_out))


def listing_digest(path: Path, skip: Path | None = None) -> str:
    """Return the sha256 of a folder's listing: relative paths, sizes and times.

    For a file it is the sha256 of its size and time; for a path that does not exist it is "".

    Raises:
        ValueError: as ``list_folder``.
    """
    if path.is_dir():
        items = list_folder(path, skip)
    elif path.exists():
        stat = path.stat()
        items = [Item("", False, stat.st_size, stat.st_mtime_ns)]
    else:
        return ""
    sha = hashlib.sha256()
    for item in items:
        # A folder's own time is left out: copying tools set it to any value, and the listing tells
        # what changed.
        sha.update(os.fsencode(f"{item.path}\0{item.is_folder}\0{item.size}\0{item.mtime_ns}\n"))
    return sha.hexdigest()


def _walk(folder: str, prefix: str, top: str, skip: str) -> Iterator[Item]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.path == skip:
                continue
            path = prefix + entry.name
            if entry.is_symlink():
                _check_link(entry, path, top)
            if entry.is_dir():
                yield Item(path, True, 0, 0)
                yield from _walk(entry.path, f"{path}/", top, skip)
                continue
            try:
                stat = entry.stat()
                yield Item(path, False, stat.st_size, stat.st_mtime_ns)
            except OSError:  # a dangling link is listed, so that the error at opening names it
                yield Item(path, False, -1, 0)


def _check_link(entry: os.DirEntry[str], path: str, top: str) -> None:
    if entry.is_dir():
        raise ValueError(
            f"{top}/{path} is a link to a folder; links to folders are not followed, so move or "
            "copy the folder there"
        )
    target = os.path.realpath(entry.path)
    if not target.startswith(top.rstrip(os.sep) + os.sep):
        raise ValueError(
            f"{top}/{path} is a link to {target}, outside the data set's folder; copy the file in "
            "or remove the link"
        )
