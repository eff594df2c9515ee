"""Open and convert the data sets that torchvision reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from benchmark.data import DatasetInfo, ImageSet


def open_split(
    name: str, make: Callable[..., Any], root: Path, download: bool, **split: object
) -> Any:
    """Open torchvision's data set ``make(root, download=..., **split)``.

    torchvision checks the files against its checksums.

    Raises:
        FileNotFoundError: if the files are missing or damaged; the message says how to get them.
        OSError: if the download fails.
    """
    try:
        return make(root, download=download, **split)
    except RuntimeError as error:  # torchvision raises it for missing and damaged files alike
        if download:
            raise OSError(
                f'data set "{name}" could not be downloaded into {root} ({error}); {_advice(name)}'
            ) from error
        raise FileNotFoundError(
            f'data set "{name}" is not in {root}, or its files are damaged; {_advice(name, True)}'
        ) from error
    except OSError as error:
        raise type(error)(
            f'data set "{name}" could not be read or fetched in {root} ({error}); {_advice(name)}'
        ) from error


def image_set(
    x: np.ndarray[Any, Any], y: ArrayLike, name: str, class_names: Sequence[str], hflip: bool
) -> ImageSet:
    """Make an ImageSet of arrays.

    Args:
        x: uint8 (N, 3, H, W) or (N, H, W, 3).
        y: labels 0..K-1, (N,).

    Raises:
        ValueError: if the array is neither form of colour images.
    """
    if x.ndim != 4 or 3 not in (x.shape[1], x.shape[3]):
        raise ValueError(
            f"images of {name} have shape {x.shape}, expected (N, 3, H, W) or (N, H, W, 3)"
        )
    first = x if x.shape[1] == 3 else x.transpose(0, 3, 1, 2)
    info = DatasetInfo(
        name, len(class_names), tuple(class_names), 3, first.shape[2], first.shape[3], hflip
    )
    labels = np.asarray(y, dtype=np.int64)
    return ImageSet(torch.from_numpy(np.ascontiguousarray(first)), torch.from_numpy(labels), info)


def _advice(name: str, offer_download: bool = False) -> str:
    how = "add --download to fetch it, " if offer_download else "check the network, "
    return (
        f"{how}name the folder that has it with --data-root, or read your own images with "
        f"folder[path=...] in place of {name}"
    )
