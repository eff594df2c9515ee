"""Apply attacks and defenses to images in memory: NumPy arrays or torch tensors."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, SupportsIndex, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec, parse_spec
from benchmark.data import DatasetInfo, ImageSet
from benchmark.running import craft as running
from benchmark.running.deterministic import deterministic
from benchmark.running.global_random import build_watched, seeded_stage
from benchmark.running.hardware import choose_device, native_precision
from benchmark.running.scheduler.outcome import WARNING
from benchmark.workspace.arguments import check_purifies, whole, wrong_type

Images = TypeVar("Images", NDArray[np.uint8], Tensor)
Layout = Literal["NCHW", "NHWC"]
CHANNELS = (1, 3)


def craft(
    kind: Literal["attack", "defense"],
    images: Images,
    labels: Any,
    spec: str,
    *,
    seed: SupportsIndex = 0,
    classes: int | None = None,
    layout: Layout | None = None,
    plugins: tuple[Path, ...] = (),
    device: str = "auto",
    precision: str = "auto",
) -> Images:
    """Poison or purify images; see ``functions.poison`` and ``functions.purify``."""
    craft_seed = whole("seed", seed)
    layout = layout_of(images, layout)
    data = image_set(images, labels, classes, layout)
    if not isinstance(spec, str):
        raise wrong_type("spec", spec, f"expected the spec of one {kind}")
    registry, device = Registry(plugins), choose_device(device)
    methods = [replace(part, then=None) for part in parse_spec(spec).parts()]
    if kind == "defense" and len(methods) > 1:
        raise ValueError(f'"{spec}" joins two defenses with +; purify with one after the other')
    full = [registry.resolve(kind, method) for method in methods]
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f'precision "{precision}" is unknown; expected auto, fp32 or bf16')
    settings: dict[str, Any] = {
        "device": torch.device(device),
        "precision": native_precision(device) if precision == "auto" else precision,
        "registry": registry,
    }
    made = data
    with deterministic():
        for method in full:
            axes = (kind, data.fingerprint, method.name, craft_seed)
            with TemporaryDirectory() as scratch:
                ctx = Context(seed_axes=axes, scratch=Path(scratch), on_log=_warn, **settings)
                apply = _poison if kind == "attack" else _purify
                with seeded_stage(ctx):
                    made = apply(made, method, registry, ctx)
    return _as_given(made.x, images, layout)


def _poison(clean: ImageSet, spec: Spec, registry: Registry, ctx: Context) -> ImageSet:
    attack: Attack = build_watched("attack", spec, registry, ctx)
    attack.check(clean.info)
    return running.poison(attack, clean, ctx).images


def _purify(protected: ImageSet, spec: Spec, registry: Registry, ctx: Context) -> ImageSet:
    check_purifies(spec.name, registry)
    defense: Defense = build_watched("defense", spec, registry, ctx)
    if defense.filters:
        raise ValueError(
            f'defense "{spec.name}" drops images, so that labels no longer fit; use the command '
            "purify"
        )
    return running.purify(defense, protected, ctx).images


def _warn(line: str) -> None:
    """Show what a stage would show in the terminal; log lines go nowhere."""
    if line.startswith(WARNING):
        warnings.warn(line.removeprefix(WARNING), stacklevel=6)


def layout_of(images: Any, layout: Layout | None = None) -> Layout:
    """Find the layout of images: the axis of size 1 or 3 holds the channels.

    Args:
        images: what the caller gave.
        layout: the layout that the caller names, if any.

    Raises:
        TypeError: if the images are neither an array nor a tensor.
        ValueError: if the layout is unknown, if the shape does not fit it, or if it is not named
            and both axes, or neither, could hold the channels.
    """
    if not isinstance(images, (np.ndarray, Tensor)):
        raise TypeError(
            f"images are of type {type(images).__name__}, expected a NumPy array or a torch tensor"
        )
    if layout not in (None, *get_args(Layout)):
        raise ValueError(f'layout={layout!r} is unknown; expected "NCHW" or "NHWC"')
    shape = tuple(images.shape)
    first, last = (len(shape) == 4 and shape[axis] in CHANNELS for axis in (1, 3))
    if layout is not None and (first if layout == "NCHW" else last):
        return layout
    if layout is not None or first == last:
        choice = '; say which with layout="NCHW" or layout="NHWC"' if first else ""
        expected = {"NCHW": "(N, C, H, W)", "NHWC": "(N, H, W, C)"}
        wanted = expected[layout] if layout else " or ".join(expected.values())
        raise ValueError(
            f"images have shape {shape}, expected {wanted} with 1 or 3 "
            f"channels{'' if layout else choice}"
        )
    return "NCHW" if first else "NHWC"


def image_set(images: Any, labels: Any, classes: int | None, layout: Layout) -> ImageSet:
    """Convert images and labels to an ``ImageSet``.

    Raises:
        TypeError: if the images are not uint8, or the labels not whole numbers.
        ValueError: if shapes or labels do not fit.
    """
    x = _tensor("images", images, "expected uint8 0..255")
    if x.dtype != torch.uint8:
        raise TypeError(f"images are {x.dtype}, expected uint8 0..255; multiply by 255 and round")
    expected = f"expected {len(x)} whole numbers, one an image"
    y = _tensor("labels", labels, expected)
    whole_numbers = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole_numbers or tuple(y.shape) != (len(x),):
        raise TypeError(f"labels are {y.dtype} {tuple(y.shape)}, {expected}")
    if not len(x):
        raise ValueError("there are no images")
    x = (x if layout == "NCHW" else x.permute(0, 3, 1, 2)).detach().cpu().contiguous()
    y = y.detach().to("cpu", torch.int64)
    if y.min() < 0:
        raise ValueError(
            f"labels run from {int(y.min())} to {int(y.max())}, expected whole numbers from 0 on"
        )
    count = int(y.max()) + 1 if classes is None else whole("classes", classes)
    names = tuple(str(label) for label in range(count))
    _, channels, height, width = x.shape
    info = DatasetInfo("arrays", count, names, channels, height, width, hflip=True)
    return ImageSet(x, y, info)


def _tensor(name: str, values: Any, expected: str) -> Tensor:
    """A tensor as it is, and anything else as a new tensor.

    Args:
        name: the argument, for the message.
        values: what the caller gave.
        expected: the words of the message that say what would fit.

    Raises:
        TypeError: for texts and other objects, and for lists of several lengths.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.array(values)
    except ValueError as error:
        raise TypeError(f"{name} are no array ({error}), {expected}") from error
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise TypeError(f"{name} are of type {array.dtype}, {expected}") from None


def _as_given(x: Tensor, images: Images, layout: Layout) -> Images:
    """Convert ``x`` (N, C, H, W) to the type, layout and device of ``images``."""
    shown = (x if layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous()
    if isinstance(images, Tensor):
        return shown.to(images.device)
    return shown.numpy()
