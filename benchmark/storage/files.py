"""Files that a user names in a parameter: found, or refused with advice; and the sha256 of a file's content. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path


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
            f"{path} leads into the file {archive}; archives are not opened, so unpack it and give the path of what was in it"
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
