"""Keep large tensors, with a row for each image, in files.

At 224 pixels the noise of 10,000 images takes 2.8 GiB.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

import torch
from torch import Tensor

from benchmark.storage.atomic import explained, rename, temporary_name


class DiskTensor:
    """A tensor in a file, read and written by rows.

    Memory holds only what a read returns; the system caches as much of the file as fits.

    Args:
        path: an existing file; None makes a file of zeros without a name, which is deleted with the
            object.
        shape: the shape of the tensor, rows first.
        dtype: the type of its values.

    Raises:
        OSError: if the file cannot be read, or is not of the tensor's size.
    """

    def __init__(self, path: Path | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._row_size = math.prod(shape[1:]) * dtype.itemsize
        size = shape[0] * self._row_size
        # The file stays open as long as this object lives.
        if path is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        else:
            self._file = path.open("r+b", buffering=0)
        if path is None:
            self._file.truncate(size)
        elif (found := path.stat().st_size) != size:
            raise OSError(f"{path} has {found:,} bytes, expected {size:,}")

    @classmethod
    def zeros(cls, folder: Path | None, shape: tuple[int, ...], dtype: torch.dtype) -> DiskTensor:
        """Make a tensor of zeros, which take no space, in a temporary file in ``folder``.

        If ``folder`` is None, the file has no name.

        Raises:
            OSError: if the file cannot be made; the message names the folder.
        """
        if folder is None:
            return cls(None, shape, dtype)
        path = temporary_name(folder / f"{uuid4().hex}.rows")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.truncate(math.prod(shape) * dtype.itemsize)
        except OSError as error:
            raise explained(error, folder) from error
        return cls(path, shape, dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: slice | Tensor) -> Tensor:
        """Read the rows at ``where``, a slice or int64 positions: (B, ...), on the CPU."""
        runs = self._runs(where)
        out = torch.empty(sum(count for _, count in runs), *self.shape[1:], dtype=self.dtype)
        target, done = out.view(torch.uint8).reshape(-1).numpy().data, 0
        for start, count in runs:
            self._file.seek(start * self._row_size)
            end = done + count * self._row_size
            while done < end:
                got = self._file.readinto(target[done:end])
                if not got:
                    raise OSError(f"{self.path} has become shorter while it was in use")
                done += got
        return out

    def __setitem__(self, where: slice | Tensor, rows: Tensor) -> None:
        """Write ``rows`` (B, ...) at ``where``.

        Raises:
            OSError: if the disk is full; the message names the folder.
        """
        stored = rows.detach().to("cpu", self.dtype).contiguous()
        source = stored.view(torch.uint8).reshape(-1).numpy().data
        done = 0
        try:
            for start, count in self._runs(where):
                self._file.seek(start * self._row_size)
                end = done + count * self._row_size
                while done < end:
                    done += self._file.write(source[done:end])
        except OSError as error:
            raise (error if self.path is None else explained(error, self.path.parent)) from error

    def keep(self) -> None:
        """Give a temporary file a lasting name; its content then survives a power cut."""
        os.fsync(self._file.fileno())
        if self.path is not None:
            lasting = self.path.with_name(f"{uuid4().hex}.rows")
            rename(self.path, lasting)
            self.path = lasting

    def delete(self) -> None:
        """Delete the file."""
        self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _runs(self, where: slice | Tensor) -> list[tuple[int, int]]:
        """Return the first row and the number of rows of each read or write."""
        if isinstance(where, slice):
            start, stop, step = where.indices(len(self))
            if step != 1:
                raise IndexError(f"a slice with step {step}, expected 1")
            return [(start, max(stop - start, 0))]
        if where.dtype != torch.int64 or (
            len(where) and not 0 <= int(where.min()) <= int(where.max()) < len(self)
        ):
            raise IndexError(
                f"rows at {where.dtype} positions, expected int64 from 0 to {len(self) - 1}"
            )
        return [(row, 1) for row in where.tolist()]
