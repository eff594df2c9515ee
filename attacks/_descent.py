"""Sign-descent over frozen models: the part that attacks on trained surrogates share.

In eval mode an image's gradient does not depend on the images around it. So the set is crafted chunk by chunk: all steps of a chunk,
then its bytes, once. A finished chunk is kept in the scratch folder, where a killed run finds it again.

An attack gives ``craft`` two functions: ``change``, which moves a chunk's images (most often by ``descend``), and ``judge``, which tells
how well that went. ``drive`` has both, for predictions of another class. What an attack draws depends on the seed, the chunk and the step
alone, so its generators are named by ``Chunk.name`` and the step.
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

PIXELS = (
    128 * 32 * 32
)  # of a chunk: ResNet-18 then holds less than 1 GB of activations (fp32, images up to 362 pixels)


@dataclass(frozen=True)
class Chunk:
    """Images that are crafted together.

    Attributes:
        name: of this chunk and restart, for generators: ``ctx.generator(f"shift {chunk.name} {step}")``.
        x: clean, float (B, C, H, W) in [0, 1], on the device, in channels-last memory.
        y: int64 (B,), on the device.
        progress: reports the share of this chunk that is done, 0..1.
    """

    name: str
    x: Tensor
    y: Tensor
    progress: Callable[[float], None]


Loss = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> the loss of each, (B,)
Gradient = Callable[
    [Tensor, int], Tensor
]  # images (B, C, H, W) and number of the step, from 0 -> gradient of the same shape
Change = Callable[[Chunk], Tensor]  # -> changed images, float (B, C, H, W), within the ball
View = Callable[
    [Chunk, int], Callable[[Tensor], Tensor]
]  # chunk and number of the step -> a differentiable change of its images
Judge = Callable[
    [Chunk, Tensor], tuple[Tensor, Tensor]
]  # chunk and changed images -> loss (B,) and success in [0, 1] (B,)


def parts_of(data: ImageSet) -> Iterator[slice]:
    """Where the chunks of a set lie in it. They depend on the size of images alone, so that a poison does not depend on the machine."""
    return chunks(len(data), max(1, PIXELS // (data.info.height * data.info.width)))


def craft(
    data: ImageSet, ctx: Context, ball: Ball, change: Change, judge: Judge, restarts: int = 1
) -> ImageSet:
    """The set with every chunk changed; of several restarts over the whole set, the one with the lowest mean loss.

    Notes ``crafting_loss`` and ``crafting_success``, the means of what ``judge`` says of the images after rounding.

    Raises:
        FloatingPointError: if a changed image is not finite.
    """
    parts = list(parts_of(data))
    best, lowest, success = 0, math.inf, 0.0
    with (
        with_scratch(ctx) as inside
    ):  # where the chunks of a restart wait: memory holds the clean images and the result alone

        def crafted(restart: int, number: int) -> dict[str, Tensor]:
            done = (restart * len(parts) + number) / (restarts * len(parts))
            chunk = partial(
                _chunk,
                data,
                parts[number],
                f"restart {restart} chunk {number}",
                done,
                1 / (restarts * len(parts)),
                ctx,
            )
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
            ended.save(
                restart + 1,
                {
                    "best": torch.tensor(best),
                    "marks": torch.tensor([lowest, success], dtype=torch.float64),
                },
                now=True,
            )
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
            f"{chunk.name}: a changed image is not finite, since a gradient was not; look at the surrogate and the augmentation"
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
    return rounded_within(x, images - x, ball.eps) if ball.norm == "l2" else to_uint8(images)


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
    """``steps`` steps of ``length`` down the gradient, each projected on the ball.

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
    """What the model says of images, float64: in float32 the loss of a sure prediction is 0, and so is its label's gradient."""
    with ctx.autocast():
        logits: Tensor = model(x)
    return logits.double()


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
    """The cross-entropy of each image, float64 (B,)."""
    return F.cross_entropy(logits_of(model, x, ctx), y, reduction="none")


def targets(y: Tensor, shift: int, classes: int) -> Tensor:
    """The labels that images are driven to: the class ``shift`` places on, after the last one the first."""
    return (y + shift) % classes


def check_shift(shift: int, classes: int) -> None:
    """Refuses a shift that names each image's own class.

    Raises:
        ValueError: if it does.
    """
    if shift % classes == 0:
        raise ValueError(
            f"shift={shift} at {classes} classes names each image's own class; choose a shift that {classes} does not divide"
        )


def drive(
    data: ImageSet,
    ctx: Context,
    model: nn.Module,
    ball: Ball,
    view: View,
    steps: int,
    length: float,
    shift: int | None,
    random_start: bool = False,
    restarts: int = 1,
) -> ImageSet:
    """Crafts images that ``model``, which sees them through a new ``view`` at each step, takes for another class.

    Success is that of the images as they are, without a view.

    Args:
        steps, length: of ``descend``.
        shift: of ``targets``; None means any class but the image's own.
        random_start: begin with ``Ball.normal_start``.
    """
    sign = -1 if shift is None else 1

    def goal(chunk: Chunk) -> Tensor:
        return chunk.y if shift is None else targets(chunk.y, shift, data.info.num_classes)

    def start(chunk: Chunk) -> Tensor:
        return ball.normal_start(chunk.x, ball.eps, ctx.generator(f"start {chunk.name}"))

    def change(chunk: Chunk) -> Tensor:
        def gradient(images: Tensor, step: int) -> Tensor:
            look = view(chunk, step)
            return gradient_of(
                lambda x: sign * cross_entropy(model, look(x), goal(chunk), ctx), images
            )

        return descend(
            chunk,
            gradient,
            ball,
            steps,
            length,
            start(chunk) if random_start else None,
        )

    def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(model, images, ctx)
        hit = logits.argmax(1) == goal(chunk)
        return sign * F.cross_entropy(
            logits, goal(chunk), reduction="none"
        ), ~hit if shift is None else hit

    return craft(data, ctx, ball, change, judge, restarts)
