"""Base class of ``rem`` and ``sem``: noise against a surrogate that is trained adversarially.

In each step a batch gets fresh noise that lowers the loss of its attacked random views, and the
surrogate learns from adversarial examples of new views of the noisy images. After the last step
the attack makes the noise of every image once more, against the final surrogate.

Departures of both attacks from the released codes:
- Surrogates see images in [0, 1]; the releases subtract 0.5. BatchNorm takes out a constant
  offset, except for the rim of the first convolution, whose zero padding is black here and gray
  there. No method of this benchmark scales the inputs of a network.
- The final noise is made in order and for every image. The releases walk through a shuffled loader
  that drops the last incomplete batch, so that N mod batch_size images keep noise of training
  time; ``preset=official`` does the same.
- Views are random crops of the image padded by 4 pixels, mirrored only where a mirror image
  belongs to the same class. The releases take the mirrored crops for CIFAR only; their larger
  images are cropped and resized to 224 pixels, which would need sets stored at 256.
- The views of an image go through the surrogate in one batch, not one after another; in eval mode
  that is the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from attacks._eot import draw_views, views
from benchmark import Attack, Context, ImageSet
from benchmark.data import DatasetInfo
from benchmark.training.ball import Ball
from benchmark.training.checkpoint import Checkpoint, kept, restore_training, training_state
from benchmark.training.gradients import frozen, input_gradient
from benchmark.training.surrogate import chance_loss, check_learned
from benchmark.training.train import build_victim, check_finite

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
LOG_EVERY = 100  # model steps


@dataclass(frozen=True, kw_only=True)
class RobustMin(Attack, ABC):
    """The attack, but for ``attacked``, which says what the noise has to withstand.

    Parameters:
        eps: L-inf budget in [0, 1] units, at most 127/255.
        radius: L-inf radius of the attacks on noisy images, in [0, 1] units; 0 is the non-robust
            setting.
        steps: model steps.
        lr: of the surrogate's SGD.
        lr_every: model steps after which lr falls to a tenth.
        batch_size: images of a model step and of a part of the final noise.
        eot_samples: views of an image in a noise step.
        noise_steps: sign steps down the loss that make an image's noise.
        noise_step: length of one of them in [0, 1] units.
        attack_steps: PGD steps up the loss, of the attack on each view and of adversarial training.
        attack_step: length of one of them in [0, 1] units.
        surrogate: architecture of the surrogate, a victim's name.
        preset: clean, or official, where the last N mod batch_size images of a random order keep
            noise of training time.
    """

    # noise is kept as signed bytes
    eps: Annotated[float, Interval(ge=0.5 / 255, le=127 / 255)] = 8 / 255
    radius: Annotated[float, Interval(ge=0, lt=1)] = 4 / 255
    steps: Annotated[int, Ge(1)] = 5000
    lr: Annotated[float, Gt(0)] = 0.1
    lr_every: Annotated[int, Ge(1)] = 2000
    batch_size: Annotated[int, Ge(2)] = 128
    eot_samples: Annotated[int, Ge(1)] = 5
    noise_steps: Annotated[int, Ge(1)] = 10
    noise_step: Annotated[float, Interval(gt=0, lt=1)] = 1.6 / 255
    attack_steps: Annotated[int, Ge(1)] = 10
    attack_step: Annotated[float, Interval(gt=0, lt=1)] = 0.8 / 255
    surrogate: str = "resnet18"
    preset: Literal["clean", "official"] = "clean"

    @abstractmethod
    def attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, ctx: Context
    ) -> Tensor:
        """Images on which the noise has to lower the loss.

        They are within ``radius`` of ``x``, float (B, C, H, W) in [0, 1].
        """

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Take ``steps`` model steps, then make the final noise, part by part.

        A killed run goes on after its last saved part.

        Raises:
            ValueError: for fewer than two images, or if the surrogate has learned nothing.
            FloatingPointError: if the surrogate diverges.
        """
        if len(data) < 2:
            raise ValueError(
                f"{self.name} needs at least 2 images, since BatchNorm does; got {len(data)}"
            )
        seed = ctx.seed("surrogate")
        model = build_victim(self.surrogate, data.info, seed, ctx.registry, data).to(ctx.device)
        weights = model.parameters()
        optimizer = torch.optim.SGD(weights, self.lr, MOMENTUM, weight_decay=WEIGHT_DECAY)
        parts = self.final_parts(len(data), ctx)
        alone = torch.ones(len(data), dtype=torch.bool)
        alone[torch.cat(parts)] = False
        left = alone.nonzero().flatten()  # the images that get no final noise
        place = torch.cumsum(alone, 0) - 1  # where each of them stands in ``left``
        stale = torch.zeros(len(left), *data.x.shape[1:], dtype=torch.int8)  # their noise, levels
        losses = torch.zeros(self.steps, device=ctx.device)
        saved = Checkpoint(ctx)
        if saved.done:
            restore_training(model, optimizer, saved)
            stale.copy_(saved.tensors["stale"])
            losses.copy_(saved.tensors["losses"])
        rounds = self.steps + len(parts)

        def tell(done: int) -> None:
            text = f"round {done} of {rounds}, the last {len(parts)} for the final noise"
            ctx.progress(done / rounds, text)

        for number in range(saved.done, self.steps):
            batch, levels, losses[number] = self._model_step(model, optimizer, data, number, ctx)
            stale[place[batch[alone[batch]]]] = levels.cpu()[alone[batch]]
            self._watch(losses, number + 1, ctx)
            state = {**training_state(model, optimizer), "stale": stale, "losses": losses}
            saved.save(number + 1, state, now=number + 1 == self.steps)
            tell(number + 1)
        check_finite(model, f"after the last step ({self.steps})")
        robust_loss, chance = _recent(losses, self.steps), chance_loss(data)
        check_learned(
            self.surrogate,
            1 - robust_loss / chance,
            f"its robust loss is {robust_loss:.2f} at the end of {self.steps} steps, "
            f"where chance has {chance:.2f}",
            "raise steps, change lr, or choose another surrogate",
        )
        out = torch.empty_like(data.x)
        out[left] = _noisy(data.x[left], stale)

        def protected(number: int) -> dict[str, Tensor]:
            x, y = data.batch(parts[number], ctx.device)
            noise = self.descend(model, x, y, data.info, f"final {number}", ctx)
            return {"x": _noisy(data.x[parts[number]], noise.to(data.x.device))}

        for number, part in enumerate(parts):
            out[part] = kept(ctx, f"final{number}", partial(protected, number))["x"].to(out.device)
            tell(self.steps + number + 1)
        ctx.note(robust_loss=robust_loss, stale=len(left))
        return data.with_x(out)

    def final_parts(self, n: int, ctx: Context) -> list[Tensor]:
        """Which images get their final noise together: int64 index tensors."""
        batch = min(self.batch_size, n)
        order = torch.arange(n)
        if self.preset == "official":
            shuffled = torch.randperm(n, generator=ctx.generator("final order"))
            order = shuffled[: n - n % batch]
        return list(order.split(batch))  # type: ignore[no-untyped-call]

    def descend(
        self, model: nn.Module, x: Tensor, y: Tensor, info: DatasetInfo, purpose: str, ctx: Context
    ) -> Tensor:
        """Make the noise of a batch, from a fresh uniform start, against the model as it is.

        Args:
            x: float (B, C, H, W) in [0, 1].
            y: int64 (B,).
            purpose: names the random numbers; those of views and attacks are independent, so that
                all attacks see the same views.

        Returns:
            int8 levels (B, C, H, W).
        """
        drawn, attack = ctx.generator(f"{purpose} noise"), ctx.generator(f"{purpose} attack")
        ball = Ball("linf", self.eps)
        delta = ball.random_change(x, drawn)
        labels = y.repeat(self.eot_samples)
        with frozen(model):
            for _ in range(self.noise_steps):
                delta.requires_grad_(True)
                seen = views((x + delta).clamp(0, 1), draw_views(len(labels), info.hflip, drawn))
                target = self.attacked(model, seen.detach(), labels, attack, ctx)
                gradient, _ = input_gradient(model, target, labels, ctx)
                # the attack counts as a constant
                (pulled,) = torch.autograd.grad(seen, delta, gradient)
                delta = ball.within(delta.detach() - self.noise_step * ball.direction(pulled))
        return delta.mul_(255).round_().to(torch.int8)

    def ascend(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, ctx: Context
    ) -> Tensor:
        """Find images that raise the loss, by PGD from a random start; the model must be frozen.

        They are within ``radius`` of ``x`` and in [0, 1].
        """
        if not self.radius:
            return x
        ball = Ball("linf", self.radius)
        current = ball.random_start(x, generator)
        for _ in range(self.attack_steps):
            gradient, _ = input_gradient(model, current, y, ctx)
            current = ball.project(current + self.attack_step * ball.direction(gradient), x)
        return current

    def jitter(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add a uniform draw within ``radius`` to ``x``; the result is in [0, 1]."""
        return Ball("linf", self.radius).random_start(x, generator)

    def _model_step(
        self,
        model: nn.Module,
        optimizer: torch.optim.SGD,
        data: ImageSet,
        number: int,
        ctx: Context,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step of the surrogate.

        Returns:
            The images of its batch, their noise of this step in levels, and the loss.
        """
        batch = self._batch_of_step(len(data), number, ctx)
        x, y = data.batch(batch, ctx.device)
        levels = self.descend(model, x, y, data.info, f"step {number}", ctx)
        drawn = ctx.generator(f"step {number} model")
        noisy = (x + levels.float() / 255).clamp(0, 1)
        seen = views(noisy, draw_views(len(batch), data.info.hflip, drawn))
        with frozen(model):
            adversarial = self.ascend(model, seen, y, drawn, ctx)
        model.train()
        with ctx.autocast():
            logits = model(adversarial)
        loss = F.cross_entropy(logits.float(), y)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * 0.1 ** (number // self.lr_every)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return batch, levels, loss.detach()

    def _batch_of_step(self, n: int, number: int, ctx: Context) -> Tensor:
        """The images of one step; each pass over the set has a new order.

        An incomplete last batch is left out, as in the releases.
        """
        batch = min(self.batch_size, n)
        epoch, position = divmod(number, n // batch)
        order = torch.randperm(n, generator=ctx.generator(f"order {epoch}"))
        return order[position * batch : (position + 1) * batch]

    def _watch(self, losses: Tensor, done: int, ctx: Context) -> None:
        if done % LOG_EVERY and done < self.steps:
            return
        loss = _recent(losses, done)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the robust loss of {self.name}'s surrogate is {loss} "
                f"before step {done} of {self.steps}; lower lr"
            )
        ctx.log(f"{self.name}: step {done} of {self.steps}, robust loss {loss:.4f}")


def _recent(losses: Tensor, done: int) -> float:
    """The mean loss of the last 100 of ``done`` steps; of their last quarter if they are few."""
    return float(losses[done - min(LOG_EVERY, max(done // 4, 1)) : done].mean())


def _noisy(x: Tensor, levels: Tensor) -> Tensor:
    """Add noise in levels to uint8 images and clip."""
    return (x.to(torch.int16) + levels).clamp_(0, 255).to(torch.uint8)
