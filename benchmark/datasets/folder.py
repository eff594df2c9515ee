"""Read the user's own images: ``<path>/train/<class>/*`` and ``<path>/test/<class>/*``.

Pillow decodes them once. Every image becomes ``size`` x ``size`` RGB: it is turned upright by its
EXIF orientation, transparency is laid over white, 16-bit grey levels become 8 bits, the shorter
side is resized to ``size`` (bicubic, antialiased), and the centre is cropped. An image that has
this size and form already keeps its decoded pixels. The first frame of an animation is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmark import Context, Dataset, DatasetInfo, ImageSet, Splits, dataset
from benchmark.data import chunks
from benchmark.datasets._listing import Item, list_folder

KINDS = "png jpg jpeg jpe jfif bmp webp gif tif tiff ppm pgm pnm"
SUFFIXES = frozenset(f".{kind}" for kind in KINDS.split())
DECODE_CHUNK = 64  # images in a task; few, so that progress moves and threads end together
SHOWN = 5  # names in a message

Files = dict[str, list[str]]  # class -> its files' relative paths, both sorted


@dataset(version=1, cite="the user's own images")
class Folder(Dataset):
    """Images of your own: train/<class>/* and test/<class>/* below a folder, resized to squares.

    Parameters:
        path: the folder that holds train and test.
        size: height and width of the images in pixels.
        on_error: what a broken image does: stop the load, or skip the image with a line in the log.
        hflip: a mirror image belongs to the same class.
    """

    path: str
    size: Annotated[int, Interval(ge=8, le=1024)] = 32
    on_error: Literal["stop", "skip"] = "stop"
    hflip: bool = True

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        top = Path(self.path).expanduser()
        if not top.is_dir():
            found = "is not a folder" if top.exists() else "does not exist"
            raise FileNotFoundError(
                f"{top} {found}; folder[path=...] expects a folder with train/<class>/* and "
                "test/<class>/*"
            )
        items = list_folder(top, skip=root / "cache")
        train, test = (_classes(items, split, top, ctx) for split in ("train", "test"))
        _check_classes(train, test, top)
        names = tuple(train)
        info = DatasetInfo("folder", len(names), names, 3, self.size, self.size, self.hflip)
        files, labels = [], []
        for classes in (train, test):
            for label, name in enumerate(names):
                files += classes[name]
                labels += [label] * len(classes[name])
        x, broken = _decode_all(top, files, self.size, ctx)
        if broken:
            self._report(broken, len(files), top, ctx)
        notes = {"left_out": len(broken)} if broken else {}
        y = torch.tensor(labels, dtype=torch.int64)
        kept = np.array([file not in broken for file in files])
        count = sum(map(len, train.values()))
        parts = []
        for split, part in (("train", slice(0, count)), ("test", slice(count, None))):
            keep = kept[part]
            pixels = x[part] if keep.all() else x[part][keep]
            images = ImageSet(torch.from_numpy(pixels), y[part][torch.from_numpy(keep)], info)
            _check_not_empty(images, split, top)
            parts.append(images)
        return Splits(*parts, notes=notes)

    def _report(self, broken: dict[str, str], total: int, top: Path, ctx: Context) -> None:
        if self.on_error == "stop":
            shown = "; ".join(f"{file} ({reason})" for file, reason in list(broken.items())[:SHOWN])
            more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
            raise ValueError(
                f"{len(broken)} of {total:,} images in {top} cannot be read: {shown}{more}. "
                "Repair or remove them, or leave them out with on_error=skip"
            )
        for file, reason in broken.items():
            ctx.log(f"folder: left out {top / file}: {reason}")
        ctx.log(f"folder: left out {len(broken)} of {total:,} images that cannot be read")


def _classes(items: list[Item], split: str, top: Path, ctx: Context) -> Files:
    """List the image files in each class folder of ``split``.

    A file without the suffix of an image is left out and logged.
    """
    here = [(item, item.path.split("/")) for item in items if item.path.startswith(f"{split}/")]
    if not any(item.is_folder and len(parts) == 2 for item, parts in here):
        loose = " (it holds files, but no folders)" if here else ""
        raise ValueError(
            f"{top / split} holds no classes{loose}; expected one folder of images a class, "
            f"{split}/<class>/*"
        )
    classes: Files = {parts[1]: [] for item, parts in here if item.is_folder and len(parts) == 2}
    others = []
    for item, parts in here:
        if item.is_folder and len(parts) > 2:
            raise ValueError(
                f"{top / item.path} is a folder inside a class; put images directly into "
                f"{split}/{parts[1]}"
            )
        if not item.is_folder:
            if len(parts) == 3 and Path(item.path).suffix.lower() in SUFFIXES:
                classes[parts[1]].append(item.path)
            else:
                others.append(item.path)
    if others:
        ctx.log(
            f"folder: {len(others)} files in {top / split} are no images by name or place, such as "
            f"{', '.join(others[:SHOWN])}"
        )
    return {name: sorted(classes[name]) for name in sorted(classes)}


def _check_classes(train: Files, test: Files, top: Path) -> None:
    if len(train) < 2:
        raise ValueError(
            f'{top / "train"} holds one class ("{next(iter(train))}"); classification needs at '
            "least 2 class folders"
        )
    for split, part in (("train", train), ("test", test)):
        empty = [name for name, files in part.items() if not files]
        if empty:
            raise ValueError(
                f"{top / split} has {len(empty)} empty classes: {_some(empty)}; "
                "add images or remove the folders"
            )
    if unknown := sorted(set(test) - set(train)):
        raise ValueError(
            f"{top / 'test'} has classes that train does not have: {_some(unknown)}; "
            "names must be equal"
        )
    if absent := sorted(set(train) - set(test)):
        raise ValueError(
            f"{top / 'test'} lacks classes that train has: {_some(absent)}; "
            "every class needs test images"
        )


def _check_not_empty(images: ImageSet, split: str, top: Path) -> None:
    counts = torch.bincount(images.y, minlength=images.info.num_classes).tolist()
    lost = [name for name, count in zip(images.info.class_names, counts, strict=True) if count == 0]
    if lost:
        raise ValueError(
            f"no image can be read of these classes in {top / split}: {_some(lost)}; "
            "repair the images or remove the classes"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _decode_all(
    top: Path, files: list[str], size: int, ctx: Context
) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """Decode all images, uint8 (N, 3, size, size).

    Returns:
        The images, and for each file that cannot be read the reason: file -> reason.
    """
    out = np.zeros((len(files), 3, size, size), np.uint8)

    def decode_part(part: slice) -> list[tuple[str, str]]:
        return list(_decode_into(out, top, files, size, part))

    parts = list(chunks(len(files), DECODE_CHUNK))
    # Threads serve here: Pillow decodes outside the GIL, and all threads write into ``out``.
    parallel = Parallel(
        n_jobs=max(ctx.workers, 1), require="sharedmem", return_as="generator", batch_size=1
    )
    decoded = parallel(delayed(decode_part)(part) for part in parts)
    done = ctx.track(decoded, len(parts), f"decoding {len(files):,} images")
    return out, {file: reason for broken in done for file, reason in broken}


def _decode_into(
    out: NDArray[np.uint8], top: Path, files: list[str], size: int, part: slice
) -> Iterator[tuple[str, str]]:
    for i in range(part.start, part.stop):
        try:
            out[i] = decode(top / files[i], size)
        except Exception as error:  # damaged bytes make decoders raise almost anything
            reason = str(error).replace(str(top / files[i]), "the file")
            yield files[i], reason or type(error).__name__


def decode(file: Path, size: int) -> NDArray[np.uint8]:
    """Read one image file as uint8 (3, size, size), RGB.

    Raises:
        ValueError: for floating-point pixels.
        Exception: whatever Pillow raises on damaged files, such as OSError or SyntaxError.
    """
    with Image.open(file) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        image = _rgb(opened)
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # Only the centre is computed. Its edges take in the pixels beside them, as they do when
        # the whole image is resized.
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError(
            "floating-point pixels have no known range; save the image with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image).astype(np.int64))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(levels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Convert 16-bit grey levels to 8 bits, rounded to nearest: 65535 becomes 255."""
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError(
            f"grey levels from {levels.min()} to {levels.max()}, expected 16 bits (0..65535); "
            "save the image with 8 or 16 bits"
        )
    result: NDArray[Any] = (levels + 128) // 257
    return result.astype(np.uint8)
