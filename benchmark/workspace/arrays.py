"""Apply attacks and defenses to images in memory: NumPy arrays or torch tensors."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

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
from benchmark.running.global_random import seeded_stage
from benchmark.running.hardware import choose_device, native_precision
from benchmark.running.scheduler.outcome import WARNING

Images = TypeVar("Images", NDArray[np.uint8], Tensor)
Layout = Literal["NCHW", "NHWC"]
CHANNELS = (1, 3)


def craft(
    kind: Literal["attack", "defense"],
    images: Images,
    labels: Any,
    spec: str,
    *,
    seed: int = 0,
    classes: int | None = None,
    layout: Layout | None = None,
    plugins: tuple[Path, ...] = (),
    device: str = "auto",
    precision: str = "auto",
) -> Images:
    """Poison or purify images; see ``functions.poison`` and ``functions.purify``."""
    layout = layout or layout_of(images)
    data = image_set(images, labels, classes, layout)
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
            axes = (kind, data.fingerprint, method.name, seed)
            with TemporaryDirectory() as scratch:
                ctx = Context(seed_axes=axes, scratch=Path(scratch), on_log=_warn, **settings)
                apply = _poison if kind == "attack" else _purify
                with seeded_stage(ctx):
                    made = apply(made, method, registry, ctx)
    return _as_given(made.x, images, layout)


def _poison(clean: ImageSet, spec: Spec, registry: Registry, ctx: Context) -> ImageSet:
    attack: Attack = registry.build("attack", spec)
    attack.check(clean.info)
    return running.poison(attack, clean, ctx).images


def _purify(protected: ImageSet, spec: Spec, registry: Registry, ctx: Context) -> ImageSet:
    registry.check_purifies(spec.name)
    defense: Defense = registry.build("defense", spec)
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


def layout_of(images: Any) -> Layout:
    """Find the layout of images: the axis of size 1 or 3 holds the channels.

    Raises:
        ValueError: if both axes, or neither, could hold them.
    """
    shape = tuple(images.shape)
    first, last = (len(shape) == 4 and shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        choice = '; say which with layout="NCHW" or layout="NHWC"' if first else ""
        raise ValueError(
            f"images have shape {shape}, expected (N, C, H, W) or (N, H, W, C) with 1 or 3 "
            f"channels{choice}"
        )
    return "NCHW" if first else "NHWC"


def image_set(images: Any, labels: Any, classes: int | None, layout: Layout) -> ImageSet:
    """Convert images and labels to an ``ImageSet``.

    Raises:
        TypeError: if the images are not uint8, or the labels not whole numbers.
        ValueError: if shapes or labels do not fit.
    """
    x = images if isinstance(images, Tensor) else torch.from_numpy(np.asarray(images).copy())
    y = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    if x.dtype != torch.uint8:
        raise TypeError(f"images are {x.dtype}, expected uint8 0..255; multiply by 255 and round")
    if y.is_floating_point() or y.dtype == torch.bool or y.ndim != 1 or len(y) != len(x):
        raise TypeError(
            f"labels are {y.dtype} {tuple(y.shape)}, expected {len(x)} whole numbers, one an image"
        )
    if not len(x):
        raise ValueError("there are no images")
    x = (x if layout == "NCHW" else x.permute(0, 3, 1, 2)).detach().cpu().contiguous()
    y = y.detach().to("cpu", torch.int64)
    count = int(y.max()) + 1 if classes is None else classes
    names = tuple(str(label) for label in range(count))
    _, channels, height, width = x.shape
    info = DatasetInfo("arrays", count, names, channels, height, width, hflip=True)
    return ImageSet(x, y, info)


def _as_given(x: Tensor, images: Images, layout: Layout) -> Images:
    """Convert ``x`` (N, C, H, W) to the type, layout and device of ``images``."""
    shown = (x if layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous()
    if isinstance(images, Tensor):
        return shown.to(images.device)
    return shown.numpy()
