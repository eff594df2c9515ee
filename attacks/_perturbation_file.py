"""Read arrays from files that others published, so that no file can run anything.

It reads ``.npy``, ``.npz``, files of ``torch.save``, and plain pickles of NumPy arrays. The first
bytes tell which, not the name, so that the content alone decides. NumPy reads without pickles and
torch with ``weights_only=True``. ``_Unpickler`` reads a pickle: the few names that a pickled array
needs stand for functions of this file that build arrays of numbers out of bytes, and it refuses
every other name. It does not call NumPy's own functions, since a forged state makes some of them
trust bytes as pointers.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.catalogue.spec import did_you_mean

Array = NDArray[Any]

# the pickled number that files of torch before 1.6 begin with
LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Found:
    """One array of a file.

    Attributes:
        name: the array's name in the file; empty if it has none.
        index, labels: the arrays of these names beside it.
    """

    values: Array
    name: str = ""
    index: Array | None = None
    labels: Array | None = None

    @property
    def is_change(self) -> bool:
        """Whether it has the name and type of a change that ``poison --format npz`` writes."""
        return self.name == "perturbation" and self.values.dtype.kind == "i"


def read(file: Path, name: str = "") -> Found:
    """Read one array of the file, with the index and the labels beside it.

    ``.npy`` and current torch files stay on disk until they are used.

    Args:
        name: which of several arrays; without it ``perturbation``, or the only one beside
            ``index`` and ``labels``.

    Raises:
        ValueError: if the file holds something else than arrays of numbers, or is damaged; the
            message names the file and the reason.
    """
    try:
        with _open(file) as content:
            if isinstance(content, Mapping):
                chosen = _choose(list(content), name)
                index, labels = (
                    _numbers(content[other]) if other in content else None
                    for other in ("index", "labels")
                )
                return Found(_numbers(content[chosen]), chosen, index, labels)
            if name:
                raise ValueError(f"it holds one array, which has no name; leave out array={name}")
            return Found(_numbers(content))
    except Exception as error:  # damaged bytes make readers raise almost anything
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"cannot read {file}: {reason}; expected numbers in .npy, .npz, .pt or .pkl"
        ) from error


def _open(file: Path) -> AbstractContextManager[object]:
    with file.open("rb") as handle:
        head = handle.read(len(LEGACY_TORCH))
    if head.startswith(b"\x93NUMPY"):
        return nullcontext(np.load(file, mmap_mode="c", allow_pickle=False))
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return nullcontext(_torch(file, mmap=True))
        if not all(name.endswith(".npy") for name in names):
            raise ValueError(
                f"it is an archive that holds {names[0]}; archives are not opened, so unpack it "
                "and give the array's path"
            )
        arrays: AbstractContextManager[object] = np.load(file, allow_pickle=False)
        return arrays
    if head == LEGACY_TORCH:
        return nullcontext(_torch(file, mmap=False))
    with file.open("rb") as handle:
        return nullcontext(_Unpickler(handle).load())


def _torch(file: Path, mmap: bool) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        refusal = _refusal(named[1] if named else "more than tensors")
        raise ValueError(refusal) from None  # torch's words advise to switch the check off


def _refusal(name: str) -> str:
    return (
        f"it asks for {name}, and only numbers are taken from strangers' files; "
        "ask its author for a .npy file"
    )


def _choose(names: list[str], wanted: str) -> str:
    if wanted:
        if wanted not in names:
            raise ValueError(f'it holds no array "{wanted}"{did_you_mean(wanted, names)}')
        return wanted
    arrays = [name for name in names if name not in ("index", "labels")] or names
    if "perturbation" in arrays:
        return "perturbation"
    if len(arrays) != 1:
        raise ValueError(
            f"it holds {len(arrays)} arrays ({', '.join(map(str, arrays))}); "
            "say which one with array=NAME"
        )
    return arrays[0]


def _numbers(value: object) -> Array:
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    elif isinstance(value, _Array):
        value = value.array
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"it holds a {type(value).__name__}, expected an array or a dictionary of arrays"
        )
    if value.dtype.kind == "b":
        raise ValueError(
            "it holds true and false, expected numbers; "
            "of a mask give the positions, numpy.flatnonzero(mask)"
        )
    if value.dtype.kind not in "iuf" or value.dtype.itemsize > 8:
        raise ValueError(
            f"its dtype is {value.dtype}, expected integers or floats of at most 64 bits"
        )
    return value


class _DType:
    """Stands for ``numpy.dtype`` in a pickle: plain numbers only."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[iuf][248]|[iu]1", code):
            kind = "Python objects" if str(code).startswith("O") else f'"{code}"'
            raise pickle.UnpicklingError(f"its pickled array holds {kind}, not integers or floats")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle: bytes with a dtype and a shape."""

    array: Array | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(
    data: bytes, dtype: _DType, shape: tuple[int, ...], order: str, *_: object
) -> _Array:
    made = _Array()
    made.__setstate__((1, shape, dtype, order == "F", data))
    return made


def _scalar(dtype: _DType, data: bytes) -> int | float:
    number: int | float = np.frombuffer(data, dtype.dtype)[0].item()
    return number


def _encode(text: str, encoding: str) -> bytes:
    # pickle itself writes latin1; other codecs may do more than turn text into bytes
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding}, expected latin1")
    return text.encode("latin1")


_STAND_INS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,  # protocol 5
    ("_codecs", "encode"): _encode,  # bytes in protocols 0 to 2
}


class _Unpickler(pickle.Unpickler):
    """Refuses every name but those of ``_STAND_INS``, and imports none."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        present = re.sub(r"^numpy\.core\b", "numpy._core", module)  # numpy.core before NumPy 2
        known = _STAND_INS.get((present, name))
        if known is None:
            raise pickle.UnpicklingError(_refusal(f"{module}.{name}"))
        return partial(known)  # made anew, so that nothing a pickle does to it outlives the reading
