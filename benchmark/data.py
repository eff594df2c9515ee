"""Hold labelled images, in the one form of data sets, poisons and purified sets."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.keys import canonical_json

CHUNK = 2048 * 3072  # numbers handled at once: 25 MB of floats, so that memory stays flat


@dataclass(frozen=True)
class DatasetInfo:
    """Describe the images and classes of a data set.

    Attributes:
        name: of the data set.
        num_classes: the number of classes, at least 2.
        class_names: one name for each class.
        channels, height, width: the shape of an image, in pixels.
        hflip: whether a mirror image belongs to the same class.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    hflip: bool

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(
                f'data set "{self.name}" has {self.num_classes} class(es); classification needs '
                "at least 2"
            )
        if len(self.class_names) != self.num_classes:
            raise ValueError(
                f'data set "{self.name}" names {len(self.class_names)} classes but has '
                f"{self.num_classes}"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DatasetInfo:
        """Read the JSON form of ``dataclasses.asdict``."""
        return cls(**{**values, "class_names": tuple(values["class_names"])})

    @property
    def size(self) -> int:
        """The number of values in one image: channels x height x width."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images; an instance does not change.

    Attributes:
        x: uint8 (N, C, H, W), 0..255.
        y: int64 (N,), 0..num_classes-1.
        info: describes the data set that they belong to.
    """

    x: Tensor
    y: Tensor
    info: DatasetInfo

    def __post_init__(self) -> None:
        shape = (len(self.y), self.info.channels, self.info.height, self.info.width)
        if self.x.dtype != torch.uint8:
            raise TypeError(
                f"images are {self.x.dtype}, expected uint8 0..255; convert with ImageSet.perturb "
                "or ImageSet.map"
            )
        if tuple(self.x.shape) != shape:
            raise ValueError(
                f"images have shape {tuple(self.x.shape)}, expected {shape} (N, C, H, W) for "
                f"{self.info.name}"
            )
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise TypeError(f"labels are {self.y.dtype} {tuple(self.y.shape)}, expected int64 (N,)")
        if len(self.y) and (int(self.y.min()) < 0 or int(self.y.max()) >= self.info.num_classes):
            raise ValueError(
                f"labels run from {int(self.y.min())} to {int(self.y.max())}, expected "
                f"0..{self.info.num_classes - 1} for {self.info.name}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def with_x(self, x: Tensor) -> ImageSet:
        """Return the same labels with other images, uint8 (N, C, H, W)."""
        return ImageSet(x, self.y, self.info)

    def select(self, index: Tensor) -> ImageSet:
        """Return the images at ``index``, int64 (M,), in that order."""
        return ImageSet(self.x[index], self.y[index], self.info)

    def batch(self, where: slice | Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a batch of images as a network takes them, with their labels.

        Args:
            where: a slice, or int64 positions on the CPU.
            device: the device of both results.

        Returns:
            Images, float (B, C, H, W) in [0, 1] in channels-last memory; and labels, int64 (B,).
        """
        # A GPU still computes the last batch while these copies are made.
        x, y = (part[where].to(device, non_blocking=True) for part in (self.x, self.y))
        return to_float(x).to(memory_format=torch.channels_last), y

    def perturb(self, delta: Tensor) -> ImageSet:
        """Add ``delta`` (N, C, H, W) in [0, 1] units, clip to the image range, round to nearest.

        Raises:
            ValueError: if the shape differs from the images' or ``delta`` holds NaN or infinite
                values.
        """
        if delta.shape != self.x.shape:
            raise ValueError(
                f"delta has shape {tuple(delta.shape)}, expected {tuple(self.x.shape)}"
            )
        out = torch.empty_like(self.x)
        for part in chunks(len(self), at_once(self.x)):
            change = delta[part].to(self.x.device, torch.float32)
            if not bool(torch.isfinite(change).all()):
                bad = int((~torch.isfinite(change)).flatten(1).any(1).nonzero()[0]) + part.start
                raise ValueError(f"delta of image {bad} is not finite; the attack diverged")
            out[part] = to_uint8(to_float(self.x[part]) + change)
        return self.with_x(out)

    def map(self, fn: Callable[[Tensor], Tensor]) -> ImageSet:
        """Apply ``fn`` (uint8 batch -> uint8 batch of the same shape) to all images in chunks."""
        out = torch.empty_like(self.x)
        for part in chunks(len(self), at_once(self.x)):
            batch = fn(self.x[part])
            if batch.dtype != torch.uint8 or batch.shape != self.x[part].shape:
                raise TypeError(
                    f"map got {batch.dtype} {tuple(batch.shape)} from its function, expected "
                    f"uint8 {tuple(self.x[part].shape)}"
                )
            out[part] = batch
        return self.with_x(out)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of images, labels and info."""
        sha = hashlib.sha256(canonical_json(asdict(self.info)).encode())
        for tensor in (self.x, self.y):
            for part in chunks(len(self), at_once(self.x)):
                sha.update(tensor[part].cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Splits:
    """The training and the test images of a data set, with notes about the data set.

    For example, ``{"left_out": 3}`` notes that three images could not be read.
    """

    train: ImageSet
    test: ImageSet
    notes: Mapping[str, int | str] = field(default_factory=dict, kw_only=True)

    @property
    def info(self) -> DatasetInfo:
        return self.train.info


def chunks(n: int, size: int) -> Iterator[slice]:
    """Return slices of ``size`` that cover 0..n in order; the last may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def at_once(x: Tensor | NDArray[Any]) -> int:
    """Return how many images like those of ``x``, (N, C, H, W), hold ``CHUNK`` numbers together.

    For images of 3x32x32 it is 2,048.
    """
    return max(1, CHUNK // max(1, math.prod(x.shape[1:])))


def to_float(x: Tensor) -> Tensor:
    """Convert uint8 0..255 to float32 in [0, 1]."""
    return x.to(torch.float32).div_(255)


def to_uint8(x: Tensor) -> Tensor:
    """Convert floats in [0, 1] units to uint8, clipped and rounded to nearest."""
    return x.clamp(0, 1).mul_(255).round_().to(torch.uint8)


def truncate_uint8(x: Tensor) -> Tensor:
    """Convert floats in [0, 1] units to uint8, clipped and cut toward zero.

    Several released codes write their images in this way.
    """
    return x.clamp(0, 1).mul_(255).to(torch.uint8)


# Share of an L2 budget that is allowed after rounding to uint8, which may lengthen a change.
L2_ALLOWED = 1.01

# Share of an L2 budget that an attack aims at if it looks at its rounded images.
L2_AIM = 1.009
