"""Find the files that a user names in a parameter, and check the content of files.

The module needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def given_file(path: str) -> Path:
    """The file at ``path``; ``~`` stands for the home folder.

    Raises:
        FileNotFoundError: if there is no such file.
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
    """The sha256 of the file that a user names. Raises what ``given_file`` raises."""
    return sha256_of(given_file(path))


def sha256_of(file: Path) -> str:
    """The sha256 of a file, which is read in pieces."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_file(path: Path, expected: Mapping[str, Any], advice: str) -> None:
    """Check that a published file has the ``size`` and ``sha256`` that its manifest lists.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if the file is truncated, damaged, or not a safetensors file; the message ends
            with ``advice``.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            refuse_pickle(file.read(8), path, advice)
        actual = sha256_of(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing though its manifest lists it; {advice}"
        ) from error
    if size != expected["size"]:
        what = "truncated" if size < expected["size"] else "damaged"
        raise ValueError(
            f"{path} is {what}: it has {size} bytes, expected {expected['size']}; {advice}"
        )
    if actual != expected["sha256"]:
        raise ValueError(
            f"{path} is corrupt: its sha256 is {actual}, expected {expected['sha256']}; {advice}"
        )


def refuse_pickle(head: bytes, path: Path, advice: str) -> None:
    """Refuse a file that begins like a zip archive or a pickle, which ``torch.save`` writes.

    A safetensors file begins with the length of its JSON header. Read as a number, the first bytes
    of a zip archive or a pickle are larger than any such length.

    Raises:
        ValueError: if ``head``, the first 8 bytes of the file, are those of such a file.
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
