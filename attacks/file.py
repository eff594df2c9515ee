"""Perturbations and protected images from a file that others published.

Source: none of its own. The attack reads the forms in which the authors of EM, REM, SEM, TAP, AR,
NTGA and the D-VAE study pass theirs on, one entry an image or a class: floats in [0, 1] units or
levels 0..255, integers in levels; channels first or last; the change, or the whole images. Shape
and range tell the form. The attack logs what it recognised and notes it in the manifest; parameters
can force every part of it.

Departures:
- Values are rounded to nearest when they are added. Loaders of EM, NTGA and the D-VAE study cut
  toward zero, which differs by at most one level.
- Images that an index map leaves out stay clean. Loaders of NTGA's sets drop them from training.
- A reader that knows NumPy arrays and nothing else reads pickles
  (``attacks/_perturbation_file.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from attacks._lengths import check_lengths
from attacks._perturbation_file import Array, read
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.api import Norm
from benchmark.data import at_once, chunks, to_float, to_uint8
from benchmark.storage.files import given_file

# share of values of 1 or -1 from which on it is doubtful that signed numbers are in [0, 1] units
SATURATED = 0.05
SAMPLE = 512  # entries that the attack compares with the data set's images


@dataclass(frozen=True)
class Entries:
    """The entries of a file, and the images that they belong to.

    Attributes:
        values: numbers as the file has them, (M, C, H, W).
        images: int64 (n,), positions of the images that get an entry.
        rows: int64 (n,), the entry of each of these.
        low, high: smallest and largest of ``values`` and 0.
    """

    values: Array
    images: Tensor
    rows: Tensor
    low: float
    high: float

    def take(self, part: slice | Tensor, unit: str) -> Tensor:
        """The entries of some of ``images``, float32 (B, C, H, W) in [0, 1] units."""
        chosen = torch.from_numpy(self.values[self.rows[part].numpy()].astype(np.float32))
        return chosen if unit == "unit" else chosen.div_(255)


@attack(version=1, cite="uebench: what others published", norm="none", files=("path", "index"))
class File(Attack):
    """Apply perturbations, or take whole protected images, from a file that others published.

    Parameters:
        path: a .npy, .npz, .pt or .pkl file.
        index: a file with the position of each entry's image in the training set; empty means
            index in the file itself, or all images.
        array: which array of a file that holds several; empty means perturbation, or the only one.
        layout: nchw, nhwc, or auto (by shape).
        unit: unit for [0, 1], levels for 0..255, or auto (by type and range).
        kind: delta for changes, image for whole images, or auto (by range and likeness).
        per: image, class, or auto (by number of entries).
        eps: L-inf bound in [0, 1] units that the result must keep; 0 means none.
    """

    path: str
    index: str = ""
    array: str = ""
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    unit: Literal["auto", "unit", "levels"] = "auto"
    kind: Literal["auto", "delta", "image"] = "auto"
    per: Literal["auto", "image", "class"] = "auto"
    eps: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        if self.per == "class" and (self.index or self.kind == "image"):
            raise ValueError(
                "per=class means one change a class; "
                "it goes neither with index=... nor with kind=image"
            )
        if self.eps:
            check_lengths(eps=self.eps)

    @property
    def norm(self) -> Norm:
        """``linf`` if there is a bound, so that the harness verifies it."""
        return "linf" if self.eps else "none"

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        found = read(given_file(self.path), self.array)
        index = found.index
        if self.index:
            other = read(given_file(self.index))
            index = other.values if other.index is None else other.index
        try:
            values, layout = self._layout(found.values, data.info)
            if not len(values):
                raise ValueError("it holds no entry")
            images, rows, per = self._places(len(values), index, data)
            labels = found.labels
            if per == "image" and labels is not None and _may_be_labels(labels, data.info):
                _check_labels(labels, data.y.cpu()[images])
            entries = Entries(values, images, rows, *_range(values, ctx))
            unit = self._unit(entries)
            kind = self._kind(entries, unit, per, data, found.is_change)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        scale = 255 if unit == "unit" else 1  # to levels
        facts: dict[str, str | int] = {
            "layout": layout,
            "unit": unit,
            "kind": kind,
            "per": per,
            "dtype": str(values.dtype),
            "entries": len(values),
        }
        ctx.note(
            **facts,
            covered=len(images) / len(data),
            lowest=entries.low * scale,
            highest=entries.high * scale,
        )
        shown = ", ".join(f"{name}={fact}" for name, fact in facts.items())
        ctx.log(f"file: {self.path}: read as {shown}")
        if kind == "delta":
            ctx.note(positive_only=0 <= entries.low < entries.high)
            if ctx.notes["positive_only"]:
                ctx.log(
                    f"file: {self.path}: no change is negative (positive_only), "
                    "as in the sets that EM released; docs/methods/file.md"
                )
        out = data.x.clone()
        step = at_once(values)
        for part in ctx.track(chunks(len(images), step), -(-len(images) // step), "applying"):
            new = entries.take(part, unit)
            if kind == "image":
                out[images[part]] = to_uint8(new).to(out.device)
            else:
                out[images[part]] = data.select(images[part]).perturb(new).x
        return data.with_x(out)

    def _layout(self, values: Array, info: DatasetInfo) -> tuple[Array, str]:
        if values.ndim == 3 and info.channels == 1:
            values = values[:, None]
        shapes = {
            "nchw": (info.channels, info.height, info.width),
            "nhwc": (info.height, info.width, info.channels),
        }
        if self.layout != "auto":
            shapes = {self.layout: shapes[self.layout]}
        fits = [name for name, shape in shapes.items() if values.shape[1:] == shape]
        if not fits:
            wanted = " or ".join(f"{shape} ({name})" for name, shape in shapes.items())
            raise ValueError(
                f"it has shape {values.shape}, but entries for images of {info.name} have {wanted}"
            )
        if len(fits) == 2:
            raise ValueError(
                f"channels may be first or last in shape {values.shape}; "
                "say layout=nchw or layout=nhwc"
            )
        return (values if fits[0] == "nchw" else values.transpose(0, 3, 1, 2)), fits[0]

    def _places(
        self, count: int, index: Array | None, data: ImageSet
    ) -> tuple[Tensor, Tensor, str]:
        """Find the places of the entries.

        Returns:
            Which images get an entry, which entry each gets, and whether entries are for an
            ``image`` or a ``class``.
        """
        n, classes, every = len(data), data.info.num_classes, torch.arange(len(data))
        if index is not None and self.per != "class":
            return _positions(index, count, n), torch.arange(count), "image"
        wanted = {"image": n, "class": classes}
        if self.kind == "image":
            wanted = {"image": n}
        elif self.per != "auto":
            wanted = {self.per: wanted[self.per]}
        fits = [per for per, number in wanted.items() if count == number]
        if not fits:
            forced = "" if self.per == "auto" else f" and per={self.per}"
            raise ValueError(
                f"it holds {count:,} entries, but {data.info.name} has {n:,} training images "
                f"and {classes} classes{forced}; take the training set that it was made for, "
                "whole and in its own order, or say which images it is for with index=FILE"
            )
        if len(fits) == 2:
            raise ValueError(
                f"{count} is the number of images and that of classes; say per=image or per=class"
            )
        return every, every if fits[0] == "image" else data.y.cpu(), fits[0]

    def _unit(self, entries: Entries) -> str:
        size = max(-entries.low, entries.high)
        if self.unit != "auto":
            unit = self.unit
        elif entries.values.dtype.kind != "f" or size >= 4:
            unit = "levels"
        elif size <= 1.001:  # half precision may pass 1
            unit = "unit"
        else:
            raise ValueError(
                f"values from {entries.low:.4g} to {entries.high:.4g} are too large for [0, 1] "
                "units and small for levels; say unit=levels if they are, or undo the scaling by "
                "mean and standard deviation first if they were stored after it"
            )
        most = 1 if unit == "unit" else 255
        if size > 1.001 * most:
            raise ValueError(
                f"values run from {entries.low:.4g} to {entries.high:.4g}, "
                f"but unit={unit} allows at most {most}"
            )
        return unit

    def _kind(self, entries: Entries, unit: str, per: str, data: ImageSet, is_change: bool) -> str:
        n = len(entries.images)
        sample = torch.linspace(0, n - 1, min(n, SAMPLE, at_once(entries.values))).long()
        seen = entries.take(sample, unit)
        far = float(seen.abs().mean())
        images = to_float(data.x[entries.images[sample]]).cpu()
        near = float((seen - images).abs().mean())
        if self.kind == "auto" and unit == "unit" and entries.low < 0:
            _check_signed(seen, images, self.unit)
        if self.kind == "auto" and entries.low >= 0 and 2 * float((seen - 0.5).abs().mean()) < near:
            raise ValueError(
                "values lie close to the middle of their range, 127.5 of 255, and far from the "
                "images at their places: they look like changes stored with an offset; subtract "
                "it and save signed numbers; or say kind=image if these are gray images, or "
                "kind=delta"
            )
        if self.kind == "image" and entries.low < 0:
            raise ValueError(
                f"kind=image, but values begin at {entries.low:.4g}; images have none below 0"
            )
        unsigned = entries.low >= 0
        may_be_image = self.kind == "auto" and per == "image" and unsigned and not is_change
        if self.kind == "image" or (may_be_image and 2 * near < far):
            return "image"
        if entries.values.dtype == np.uint8 and _wraps(seen):
            raise ValueError(
                "unsigned 8-bit values close to 0 and to 255 and none between look like negative "
                "changes that wrapped around, 255 for -1; save array.view(numpy.int8) instead, or "
                "say kind=image if these are images"
            )
        if not may_be_image or 2 * far <= near:
            return "delta"
        raise ValueError(
            f"values lie {255 * near:.1f} levels from the images at their places and "
            f"{255 * far:.1f} from 0 on average, too much alike to tell images from changes; if "
            "these are images, their order may be another; else say kind=image or kind=delta"
        )


def _may_be_labels(found: Array, info: DatasetInfo) -> bool:
    return (
        found.dtype.kind in "iu"
        and bool(found.size)
        and int(found.min()) >= 0
        and int(found.max()) < info.num_classes
    )


def _check_labels(labels: Array, wanted: Tensor) -> None:
    """Refuse labels beside the entries that are not those of the images at their places."""
    if labels.shape != tuple(wanted.shape):
        raise ValueError(
            f"its labels have shape {labels.shape}, but {len(wanted):,} images get an entry"
        )
    if wrong := int((torch.from_numpy(labels.astype(np.int64)) != wanted).sum()):
        raise ValueError(
            f"{wrong:,} of {len(wanted):,} labels in it are not those of the images at the same "
            "places: it was made for another order or another set; say which images it is for "
            "with index=FILE"
        )


def _check_signed(seen: Tensor, images: Tensor, unit: str) -> None:
    """Refuse signed numbers up to 1 that can hardly be changes in [0, 1] units."""
    if 4 * float(((seen + 1) / 2 - images).abs().mean()) < float(seen.abs().mean()):
        raise ValueError(
            "values look like whole images in [-1, 1]; save them in [0, 1], (x + 1) / 2, "
            "or say kind=delta if they are changes"
        )
    if unit == "auto" and float((seen.abs() > 0.99).float().mean()) > SATURATED:
        raise ValueError(
            "many values are 1 or -1, which in [0, 1] units changes a pixel by its whole range: "
            "if they are in units of the budget, multiply them by it; say unit=levels if they are "
            "levels, or unit=unit if they are meant"
        )


def _positions(index: Array, count: int, n: int) -> Tensor:
    """Check an index map and return it as int64 (count,)."""
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ValueError(
            f"the index map is {index.dtype} {index.shape}, expected integers ({count},)"
        )
    if len(index) != count:
        raise ValueError(f"the index map places {len(index):,} entries, but there are {count:,}")
    places = torch.from_numpy(index.astype(np.int64))
    if count and (int(places.min()) < 0 or int(places.max()) >= n):
        raise ValueError(
            f"the index map has positions from {int(places.min())} to {int(places.max())}, "
            f"expected 0..{n - 1}"
        )
    if len(np.unique(index)) != count:
        raise ValueError("the index map names an image twice; expected one entry an image")
    return places


def _range(values: Array, ctx: Context) -> tuple[float, float]:
    """The smallest and the largest of the values and 0; refuse values that are not finite."""
    low = high = 0.0
    step = at_once(values)
    parts = chunks(len(values), step)
    for part in ctx.track(parts, -(-len(values) // step), "looking at the values"):
        some = values[part]
        smallest, largest = float(some.min()), float(some.max())
        if not math.isfinite(smallest) or not math.isfinite(largest):
            bad = part.start + int(np.argmin(np.isfinite(some).reshape(len(some), -1).all(1)))
            raise ValueError(
                f"entry {bad} holds NaN or an infinite value; "
                "the perturbation is damaged or its attack diverged"
            )
        low, high = min(low, smallest), max(high, largest)
    return low, high


def _wraps(seen: Tensor) -> bool:
    """Whether there are values of 192 and more, but none from 65 to 191."""
    levels = seen * 255
    return bool((levels > 191.5).any()) and not bool(((levels > 64.5) & (levels < 191.5)).any())
