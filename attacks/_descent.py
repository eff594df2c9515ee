"""Sign-descent over frozen models: the part that attacks on trained surrogates share.

In eval mode an image's gradient does not depend on the images around it. So the set is crafted
chunk by chunk: all steps of a chunk, then its bytes, once. The scratch folder keeps finished
chunks, where a killed run finds them again.

An attack gives ``craft`` two functions. ``change`` moves a chunk's images, most often by
``descend``. ``judge`` gives the loss and the success of each changed image. What an attack draws
depends on the seed, the chunk and the step alone, so its generators are named by ``Chunk.name``
and the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks._l2 import rounded_within
from benchmark.api import Context
from benchmark.data import ImageSet, chunks, to_float, to_uint8
from benchmark.training.ball import Ball
from benchmark.training.checkpoint import Checkpoint, forget, kept, with_scratch

# of a chunk; ResNet-18 then holds less than 1 GB of activations (fp32, images up to 362 pixels)
PIXELS = 128 * 32 * 32


@dataclass(frozen=True)
class Chunk:
    """Images that are crafted together.

    Attributes:
        name: of this chunk and restart, for generators:
            ``ctx.generator(f"shift {chunk.name} {step}")``.
        x: clean, float (B, C, H, W) in [0, 1], on the device, in channels-last memory.
        y: int64 (B,), on the device.
        progress: reports the share of this chunk that is done, 0..1.
    """

    name: str
    x: Tensor
    y: Tensor
    progress: Callable[[float], None]


# images (B, C, H, W) -> the loss of each, (B,)
Loss = Callable[[Tensor], Tensor]
# images (B, C, H, W) and number of the step, from 0 -> gradient of the same shape
Gradient = Callable[[Tensor, int], Tensor]
# chunk -> changed images, float (B, C, H, W), within the ball
Change = Callable[[Chunk], Tensor]
# chunk and changed images -> loss (B,) and success in [0, 1] (B,)
Judge = Callable[[Chunk, Tensor], tuple[Tensor, Tensor]]


def parts_of(data: ImageSet) -> Iterator[slice]:
    """Where the chunks of a set lie in it.

    They depend on the size of images alone, so that a poison does not depend on the machine.
    """
    return chunks(len(data), max(1, PIXELS // (data.info.height * data.info.width)))


def craft(
    data: ImageSet, ctx: Context, ball: Ball, change: Change, judge: Judge, restarts: int = 1
) -> ImageSet:
    """Change every chunk of the set, and keep the restart with the lowest mean loss.

    Notes ``crafting_loss`` and ``crafting_success``: the means over the rounded images of the loss
    and the success that ``judge`` gives.

    Args:
        restarts: passes over the whole set.

    Raises:
        FloatingPointError: if a changed image is not finite.
    """
    parts = list(parts_of(data))
    best, lowest, success = 0, math.inf, 0.0
    # a restart's chunks wait in files: memory holds the clean images and the result alone
    with with_scratch(ctx) as inside:

        def crafted(restart: int, number: int) -> dict[str, Tensor]:
            done = (restart * len(parts) + number) / (restarts * len(parts))
            share = 1 / (restarts * len(parts))
            name = f"restart {restart} chunk {number}"
            chunk = partial(_chunk, data, parts[number], name, done, share, ctx)
            return kept(
                inside,
                f"restart{restart}-chunk{number}",
                lambda: _crafted(chunk(), ball, change, judge),
            )

        ended = Checkpoint(replace(inside, on_log=None), "restarts")
        if ended.done:
            best, lowest, success = int(ended.tensors["best"]), *ended.tensors["marks"].tolist()
        for restart in range(ended.done, restarts):
            sums = torch.zeros(2, dtype=torch.float64)
            for number in range(len(parts)):
                sums += crafted(restart, number)["sums"]
            loss, share = (sums / len(data)).tolist()
            ctx.log(f"restart {restart + 1} of {restarts}: loss {loss:.4f}, success {share:.4f}")
            worse = restart
            if restart == 0 or loss < lowest:
                best, worse, lowest, success = restart, best, loss, share
            marks = torch.tensor([lowest, success], dtype=torch.float64)
            ended.save(restart + 1, {"best": torch.tensor(best), "marks": marks}, now=True)
            for number in range(len(parts) if restart else 0):
                forget(inside, f"restart{worse}-chunk{number}")
        out = torch.empty_like(data.x)
        for number, part in enumerate(parts):
            out[part] = crafted(best, number)["x"].to(out.device)
    ctx.note(crafting_loss=lowest, crafting_success=success)
    return data.with_x(out)


def _chunk(
    data: ImageSet, part: slice, name: str, done: float, share: float, ctx: Context
) -> Chunk:
    def progress(inner: float) -> None:
        ctx.progress(done + share * inner, name)

    return Chunk(name, *data.batch(part, ctx.device), progress)


def _crafted(chunk: Chunk, ball: Ball, change: Change, judge: Judge) -> dict[str, Tensor]:
    images = change(chunk)
    if not bool(torch.isfinite(images).all()):
        raise FloatingPointError(
            f"{chunk.name}: a changed image is not finite, since a gradient was not; "
            "look at the surrogate and the augmentation"
        )
    rounded = _rounded(ball, images, chunk.x)
    with torch.no_grad():
        marks = judge(chunk, to_float(rounded).to(memory_format=torch.channels_last))
    return {
        "x": rounded.cpu().contiguous(),
        "sums": torch.stack([mark.double().sum().cpu() for mark in marks]),
    }


def _rounded(ball: Ball, images: Tensor, x: Tensor) -> Tensor:
    """The images as uint8, L2 changes still within the ball."""
    if ball.norm == "l2":
        return rounded_within(x, images - x, ball.eps)
    return to_uint8(images)


def gradient_of(loss: Loss, x: Tensor) -> Tensor:
    """The gradient of the summed loss, so that an image's part does not depend on the others."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    return gradient


def descend(
    chunk: Chunk,
    gradient: Gradient,
    ball: Ball,
    steps: int,
    length: float,
    start: Tensor | None = None,
) -> Tensor:
    """Take ``steps`` steps of ``length`` down the gradient and project each on the ball.

    Args:
        length: in [0, 1] units of the ball's norm.
        start: images to begin with, (B, C, H, W); the clean ones by default.
    """
    current = chunk.x if start is None else start
    for number in range(steps):
        downhill = ball.direction(gradient(current, number))
        current = ball.project(current - length * downhill, chunk.x)
        chunk.progress((number + 1) / steps)
    return current


def logits_of(model: nn.Module, x: Tensor, ctx: Context) -> Tensor:
    """The model's logits, float64 (B, K).

    In float32 the loss of a sure prediction is 0, and so is its gradient.
    """
    with ctx.autocast():
        logits: Tensor = model(x)
    return logits.double()


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
    """The cross-entropy of each image, float64 (B,)."""
    return F.cross_entropy(logits_of(model, x, ctx), y, reduction="none")


def targets(y: Tensor, shift: int, classes: int) -> Tensor:
    """The target labels: the class ``shift`` places on, after the last class the first."""
    return (y + shift) % classes


def check_shift(shift: int, classes: int) -> None:
    """Refuse a shift that names each image's own class.

    Raises:
        ValueError: if it does.
    """
    if shift % classes == 0:
        raise ValueError(
            f"shift={shift} at {classes} classes names each image's own class; "
            f"choose a shift that {classes} does not divide"
        )
