"""Write files whole or not at all, and read JSON back.

Errors name the file or folder and say what to do.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STALE_SECONDS = 24 * 3600.0  # a temporary file of another machine is dead after this
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

_TEMPORARY = re.compile(r"\..+~(?P<host>[^~]*)~(?P<pid>\d+)~\d+\.tmp")
# The content of a file, or a function that writes it to the path that it is given.
Content = bytes | Callable[[Path], object]
_serial = count()  # two writes of one process never share a temporary name


def publish(path: Path, content: Content, durable: bool = True) -> None:
    """Write ``content`` to ``path`` whole, or leave ``path`` as it was.

    A file that is not ``durable`` is written faster, but may be lost in a power cut.
    """
    temporary = write_temporary(path, content, durable)
    try:
        rename(temporary, path, durable)
    finally:
        temporary.unlink(missing_ok=True)


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if the file holds anything else; the message ends with ``advice``.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise ValueError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} is damaged (it holds a {type(value).__name__}, expected an object); {advice}"
        )
    return value


def json_bytes(value: object, path: Path) -> bytes:
    """Encode ``value`` as the content of the JSON file ``path``.

    NumPy and torch scalars become plain numbers.

    Raises:
        ValueError: for NaN, infinities, and types that JSON does not have.
    """
    try:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=_plain)
        return text.encode() + b"\n"
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"cannot write {path.name}: {error}; results hold plain JSON with finite numbers only"
        ) from error


def _plain(value: object) -> object:
    """Turn NumPy and torch scalars into Python numbers; refuse anything else."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} is not a JSON type")
    return item()


def check_schema(content: Mapping[str, Any], newest: int, what: str, advice: str) -> None:
    """Refuse the content of a file whose ``schema`` this version cannot read.

    Raises:
        ValueError: if the schema is not a number from 1 to ``newest``. The message begins with
            ``what``; for a damaged file it ends with ``advice``.
    """
    schema = content.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(
            f"{what} is damaged: its schema is {schema!r}, "
            f"expected a number from 1 to {newest}; {advice}"
        )
    if schema > newest:
        raise ValueError(
            f"{what} has schema {schema}, but this uebench reads up to {newest}; "
            "update uebench to read it"
        )


def tensor_file(tensors: Mapping[str, Tensor]) -> Content:
    """The content of a safetensors file that holds these tensors, written without a copy."""

    def write(path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path
            )
            # safetensors makes files that only their owner may read; the folder's mode decides here
            path.chmod(path.parent.stat().st_mode & 0o666)
        except SafetensorError as error:  # it reports a full disk only in the text of its message
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error

    return write


def temporary_name(path: Path) -> Path:
    """A name in the folder of ``path`` for a file that is not whole yet.

    ``is_abandoned`` recognises the file once this process is gone.
    """
    return path.with_name(f".{path.name}~{_host()}~{os.getpid()}~{next(_serial)}.tmp")


def write_temporary(path: Path, content: Content, durable: bool = True) -> Path:
    """Write a temporary file in the folder of ``path``, and sync it to the disk if ``durable``.

    If the write fails, no temporary file stays behind.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content)
            if durable:
                _sync(temporary)
        except BaseException:  # also Ctrl-C: whatever stopped the write, half a file must not stay
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise explained(error, path.parent) from error
    return temporary


def rename(temporary: Path, path: Path, durable: bool = True) -> None:
    """Rename the written file ``temporary`` to ``path``.

    If ``durable``, the folder is synced too, so that the name survives a power cut.
    """
    try:
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        raise explained(error, path.parent) from error


def _sync(path: Path) -> None:
    """Make the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explained(error: OSError, folder: Path) -> OSError:
    """The same error, with a message that names the folder and says what to do.

    The error keeps its ``errno``.
    """
    if error.errno in FULL_DISK:
        reason = (
            "the disk is full or the quota used up; free some space and run the same command again"
        )
    elif error.errno in READ_ONLY:
        reason = "the folder is read-only for this user; make it writable or choose another store"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        reason = "a file stands where a folder should be; move it away or choose another store"
    else:
        reason = f"{error.strerror or error}; check the disk or choose another store"
    return OSError(error.errno, f"cannot write to {folder}: {reason}. What was finished is kept")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())


def is_abandoned(path: Path) -> bool:
    """Whether no process can still be writing the temporary file ``path``.

    That holds if a process of this machine left it and is gone, or if it is older than a day.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["host"] == _host():
        try:
            os.kill(int(match["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it lives and belongs to someone else
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return False  # its owner has just renamed it
