"""Self-ensemble protection: adversarial examples against checkpoints of one training run.

Source: Chen, Yuan, Cheng, Gong, Qin, Wang, Huang, "Self-Ensemble Protection: Training Checkpoints
Are Good Data Protectors", ICLR 2023, arXiv:2211.12005. Images descend a loss towards another
class:
- ``sep``: the cross-entropy of that class, mean over the checkpoints.
- ``fa`` (feature alignment): the mean square between an image's features, which enter the last
  layer, and that class's mean features.
- ``fa_vr`` (variance reduction): as ``fa``, with steps along a sum of gradients of single
  checkpoints. Each of them is corrected by how far that checkpoint's gradient was from the mean of
  all where the step began.

Departures:
- ``preset=clean`` compares features with the means of the same checkpoint, all taken in eval mode.
  In the inner loop the released code has the means of the last checkpoint, whichever was drawn. It
  takes those of its first checkpoint in training mode, where BatchNorm has the statistics of each
  batch; gradients see that checkpoint as it was saved. The paper's numbers come from code of that
  form, which is ``preset=official``; its batches are our chunks, 128 images of 32x32.
- The default budget is 8/255, as in benchmarks; the paper's is 2/255, with the same step.
- The surrogate follows a protocol of this benchmark for the published 120 epochs; the source's
  learning rate warms up for an epoch and falls in two steps. Checkpoints lie at equal distances;
  the release keeps those of epochs in which the test accuracy rose.
- Images are rounded to nearest instead of being cut.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from attacks._descent import (
    Chunk,
    check_shift,
    craft,
    cross_entropy,
    descend,
    gradient_of,
    logits_of,
    parts_of,
    targets,
)
from attacks._surrogate import SurrogateAttack
from benchmark import Context, DatasetInfo, ImageSet, attack
from benchmark.training.ball import Ball
from benchmark.training.surrogate import features, surrogates, training_of


@attack(
    version=2,
    cite="arXiv:2211.12005",
    norm="linf",
    # 30 steps of two thirds of a pass each
    effort={"checkpoints": 20.0, "inner_steps": 20.0},
    toy={
        "surrogate": "resnet8_w16_s2",
        "surrogate_protocol": "quick",
        "surrogate_epochs": 16,
        "checkpoints": 2,
        "steps": 2,
        "inner_steps": 2,
    },
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs", "checkpoints"),
)
class SEP(SurrogateAttack):
    """Noise that drives all checkpoints of a network to another class or to its features.

    Parameters:
        variant: sep (cross-entropy), fa (features) or fa_vr (features, with variance reduction).
        preset: clean; or official, with the class means of the released code, for fa and fa_vr.
        shift: the target of class y is class y + shift, after the last class the first; 0 means
            half the number of classes.
        eps: L-inf budget in [0, 1] units; the paper's is 2/255.
        step: length of one sign step in [0, 1] units.
        steps: sign steps.
        inner_steps: of fa_vr, gradients of single checkpoints a step.
        checkpoints: equally spaced over the surrogate's training; published 15 for fa_vr, 30 for
            sep and fa.
    """

    variant: Literal["sep", "fa", "fa_vr"] = "fa_vr"
    preset: Literal["clean", "official"] = "clean"
    shift: int = 0
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    step: Annotated[float, Interval(gt=0, lt=1)] = 1 / 255
    steps: Annotated[int, Ge(1)] = 30
    inner_steps: Annotated[int, Ge(1)] = 15
    checkpoints: Annotated[int, Ge(1)] = 15
    surrogate_epochs: Annotated[int, Ge(0)] = 120

    def __post_init__(self) -> None:
        if self.preset == "official" and self.variant == "sep":
            raise ValueError(
                "preset=official concerns class means, which variant=sep has no use for; "
                "leave it out"
            )
        training_of(self)  # refuses more checkpoints than epochs

    def check(self, info: DatasetInfo) -> None:
        check_shift(self._shift(info), info.num_classes)

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.check(data.info)
        pairs = []
        for number, model in enumerate(surrogates(self, data, ctx)):
            seen = model
            if self.preset == "official" and number == 0:
                seen = copy.deepcopy(model).train()
            pairs.append((model, self.means(seen, data, ctx)))
        drawn_pairs = pairs
        if self.preset == "official":
            drawn_pairs = [(model, pairs[-1][1]) for model, _ in pairs]
        ball = Ball("linf", self.eps)

        def change(chunk: Chunk) -> Tensor:
            goal = self._targets(chunk.y, data)

            def slope(pair: tuple[nn.Module, Tensor], images: Tensor) -> Tensor:
                return gradient_of(lambda x: self.loss(*pair, x, goal, ctx), images)

            def gradient(images: Tensor, step: int) -> Tensor:
                # (checkpoints, B, C, H, W)
                own = torch.stack([slope(pair, images) for pair in pairs])
                mean = own.mean(0)
                if self.variant != "fa_vr":
                    return mean
                generator = ctx.generator(f"checkpoints {chunk.name} {step}")
                drawn = torch.randint(len(pairs), (self.inner_steps,), generator=generator)
                total, moved = torch.zeros_like(images), images
                for k in drawn.tolist():
                    total = total + slope(drawn_pairs[k], moved) - (own[k] - mean)
                    moved = ball.project(moved - self.step * ball.direction(total), chunk.x)
                return total

            return descend(chunk, gradient, ball, self.steps, self.step)

        def judge(chunk: Chunk, images: Tensor) -> tuple[Tensor, Tensor]:
            goal = self._targets(chunk.y, data)
            loss = [self.loss(model, means, images, goal, ctx) for model, means in pairs]
            hits = [logits_of(model, images, ctx).argmax(1) == goal for model, _ in pairs]
            return torch.stack(loss).mean(0), torch.stack(hits).double().mean(0)

        return craft(data, ctx, ball, change, judge)

    def loss(
        self, model: nn.Module, means: Tensor, x: Tensor, goal: Tensor, ctx: Context
    ) -> Tensor:
        """The loss of each image (B,), for a checkpoint and its class means.

        Args:
            goal: the target labels, int64 (B,).
        """
        if self.variant == "sep":
            return cross_entropy(model, x, goal, ctx)
        with ctx.autocast():
            found, _ = features(model, x)
        return F.mse_loss(found.float(), means[goal], reduction="none").mean(1)

    @torch.no_grad()
    def means(self, model: nn.Module, data: ImageSet, ctx: Context) -> Tensor:
        """The mean features of each class, float32 (num_classes, F).

        The tensor is empty for the variant ``sep``, which has no use for them.

        Raises:
            ValueError: if a class without images is the target of another.
        """
        if self.variant == "sep":
            return torch.empty(0)
        counts = data.y.bincount(minlength=data.info.num_classes)
        for label in self._targets(counts.nonzero().flatten(), data).tolist():
            if not counts[label]:
                raise ValueError(
                    f"class {label} is a target but has no images, hence no mean features; "
                    "change shift, or use variant=sep"
                )
        sums: Tensor | float = 0.0
        for part in parts_of(data):
            x, y = data.batch(part, ctx.device)
            with ctx.autocast():
                found, _ = features(model, x)
            sums = sums + F.one_hot(y, len(counts)).double().T @ found.double()
        assert isinstance(sums, Tensor)
        return (sums / counts.clamp_min(1)[:, None].to(ctx.device)).float()

    def _targets(self, y: Tensor, data: ImageSet) -> Tensor:
        return targets(y, self._shift(data.info), data.info.num_classes)

    def _shift(self, info: DatasetInfo) -> int:
        return self.shift or info.num_classes // 2
