"""Files that a user names in a parameter: found, or refused with advice.

And the sha256 of a file's content. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def given_file(path: str) -> Path:
    """The file at ``path``; ``~`` is the home folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a URL, a folder, or a path that leads into an archive.
    """
    if "://" in path:
        raise ValueError(
            f"{path} is a URL, and nothing is fetched; download the file and give its path"
        )
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise ValueError(f"{path} is a folder, expected a file")
    if archive := next((parent for parent in file.parents if parent.is_file()), None):
        raise ValueError(
            f"{path} leads into the file {archive}; archives are not opened, so unpack it and "
            "give the path of what was in it"
        )
    raise FileNotFoundError(
        f"{path} does not exist; a path that does not start with / is looked up from {Path.cwd()}"
    )


def sha256(path: str) -> str:
    """sha256 of the content of a file that a user names. Errors are those of ``given_file``."""
    return sha256_of(given_file(path))


def sha256_of(file: Path) -> str:
    """sha256 of a file's bytes, which are never in memory at once."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_file(path: Path, expected: Mapping[str, Any], advice: str) -> None:
    """Checks that a published file has the ``size`` and ``sha256`` that its manifest lists.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is truncated or damaged, or no safetensors file; ends with ``advice``.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            refuse_pickle(file.read(8), path, advice)
        found = sha256_of(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing though its manifest lists it; {advice}"
        ) from error
    if size != expected["size"]:
        what = "truncated" if size < expected["size"] else "damaged"
        raise ValueError(
            f"{path} is {what}: it has {size} bytes, expected {expected['size']}; {advice}"
        )
    if found != expected["sha256"]:
        raise ValueError(
            f"{path} is corrupt: its sha256 is {found}, expected {expected['sha256']}; {advice}"
        )


def refuse_pickle(head: bytes, path: Path, advice: str) -> None:
    """Refuses a file that begins as a zip archive or a pickle, as ``torch.save`` writes them.

    A safetensors file begins with the length of its JSON header, which is smaller.

    Raises:
        ValueError: if ``head``, the first 8 bytes, are of such a file.
    """
    if (
        head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
        and int.from_bytes(head, "little") > 1 << 27
    ):
        kind = "a zip archive, as torch.save writes" if head.startswith(b"PK") else "a pickle"
        raise ValueError(
            f"{path} is {kind}, expected safetensors; it was not opened, since unpickling runs "
            f"foreign code; {advice}"
        )
