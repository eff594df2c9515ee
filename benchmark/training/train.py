"""Train and evaluate a victim; everything that decides a number is on this page."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.api import Context, Defense
from benchmark.catalogue.protocol import Protocol
from benchmark.catalogue.registry import Registry
from benchmark.data import DatasetInfo, ImageSet, chunks
from benchmark.training.loader import Batches
from benchmark.training.schedule import cosine

TEST_BATCH = 64  # images; 64 small ones stay in a CPU's cache
TRAIN_SAMPLE = 1000  # training images whose accuracy is measured at the end


@dataclass(frozen=True)
class Fit:
    """A trained victim with its accuracies in [0, 1] and losses.

    Attributes:
        model: the network after the last epoch.
        test_acc: the accuracy on the test set after each epoch; the last one counts.
        train_acc: one value, the accuracy on at most ``TRAIN_SAMPLE`` training images at the end.
        train_loss: the mean loss of each epoch.
    """

    model: nn.Module
    test_acc: list[float]
    train_acc: list[float]
    train_loss: list[float]


def build_victim(
    name: str,
    info: DatasetInfo,
    seed: int,
    registry: Registry | None = None,
    train: ImageSet | None = None,
) -> nn.Module:
    """Build an untrained victim in channels-last memory; ``seed`` alone decides its weights.

    A network that has a method ``prepare(data)`` sees the images here that it will be trained on,
    to set its buffers.

    Args:
        registry: ``ctx.registry``, which knows the victims of plugins too; None knows only those
            that uebench brings.
        train: what ``prepare`` gets; None leaves it out, as for weights that are loaded.

    Raises:
        ValueError: for an unknown victim.
    """
    module = (registry or Registry()).load("victim", name)
    with torch.random.fork_rng(devices=[]):
        # This seeds the CPU's generator alone; ``fork_rng`` would not restore those of GPUs.
        torch.default_generator.manual_seed(seed)
        model: nn.Module = module.build(info)
    prepare = getattr(model, "prepare", None)
    if train is not None and prepare is not None:
        prepare(train)
    return model.to(memory_format=torch.channels_last)


def learning_rate(protocol: Protocol, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step."""
    if protocol.schedule == "cosine":  # constant within an epoch, as in the papers' code
        return cosine(protocol.lr, step // steps_per_epoch, protocol.epochs)
    done = (step + 1) / (protocol.epochs * steps_per_epoch)
    return protocol.lr * min(done / protocol.warmup, (1 - done) / (1 - protocol.warmup) + 1e-3)


def smoothed(y: Tensor, num_classes: int, share: float) -> Tensor:
    """Spread ``share`` of each label evenly over all classes.

    Args:
        y: int64 (B,) or float (B, K).

    Returns:
        Float (B, K).
    """
    sure = F.one_hot(y, num_classes).float() if y.dim() == 1 else y
    return sure * (1 - share) + share / num_classes


def as_pair(augmented: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what ``augment`` returned.

    Raises:
        TypeError: if it is no pair. A tensor of two images would unpack into one.
    """
    if isinstance(augmented, tuple | list) and len(augmented) == 2:
        return augmented
    found = type(augmented).__name__
    if isinstance(augmented, tuple | list):
        found += f" of {len(augmented)}"
    raise TypeError(f"augment returned a {found}, expected (x, y)")


def fit(
    victim: str,
    protocol: Protocol,
    train: ImageSet,
    ctx: Context,
    defense: Defense | None = None,
    test: ImageSet | None = None,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Fit:
    """Train a victim on ``train`` and evaluate it on ``test`` after each epoch.

    Initial weights and batch order come from ``ctx`` alone, so that defenses are compared in pairs.
    During the training, hooks find the epoch in ``ctx.epoch``, the number of epochs in
    ``ctx.epochs``, and the description of the images in ``ctx.info``.

    Args:
        victim: a name that ``ctx.registry`` knows.
        protocol: the recipe of the training.
        train: the training images.
        ctx: the source of seeds, device and precision.
        defense: its ``augment``, ``loss`` and ``at_test`` are used; None means no defense.
        test: the test images; None means no evaluation.
        after_epoch: called after each epoch with its number, from 0, and the network.

    Raises:
        FloatingPointError: if the loss, or a weight at the end, is no longer finite; the message
            names epoch and step.
        ValueError: for an unknown victim.
    """
    defense = defense or Defense()
    outer = ctx.epoch, ctx.epochs
    ctx.info, ctx.epochs = train.info, protocol.epochs
    seed = ctx.seed("init")
    model = build_victim(victim, train.info, seed, ctx.registry, train).to(ctx.device)
    batches = Batches(
        train,
        protocol.batch_size,
        ctx.device,
        ctx.generator("batches"),
        crop=protocol.crop,
        flip=protocol.flip and train.info.hflip,
        drop_last=True,
    )
    decayed = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(
        decayed,
        protocol.lr,
        protocol.momentum,
        weight_decay=protocol.weight_decay,
        nesterov=protocol.nesterov,
        fused=True,
    )
    result = Fit(model, [], [], [])
    step, steps = 0, protocol.epochs * len(batches)
    for epoch in range(protocol.epochs):
        ctx.epoch = epoch
        model.train()
        loss_sum = torch.zeros((), device=ctx.device)
        for x, y, _ in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(protocol, step, len(batches))
            x, y = as_pair(defense.augment(x, y, ctx))
            if protocol.label_smoothing:
                y = smoothed(y, train.info.num_classes, protocol.label_smoothing)
            loss = defense.loss(model, x, y, ctx)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if protocol.clip:
                nn.utils.clip_grad_norm_(decayed, protocol.clip)
            optimizer.step()
            loss_sum += loss.detach()
            step += 1
            if step % 8 == 0:
                ctx.progress(step / steps, f"epoch {epoch + 1}/{protocol.epochs}")
        mean_loss = float(loss_sum) / len(batches)
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the training loss is {mean_loss} in epoch {epoch + 1} of {protocol.epochs} "
                f"(step {step}); the defense's loss diverged or lr is too high"
            )
        result.train_loss.append(mean_loss)
        if test is not None:
            result.test_acc.append(evaluate(model, test, ctx, defense.at_test))
        if after_epoch is not None:
            after_epoch(epoch, model)
    ctx.epoch, ctx.epochs = outer
    check_finite(model, f"after the last step ({step})")
    # Even steps through the set, so that all classes occur in a sorted set too.
    part = torch.linspace(0, len(train) - 1, min(len(train), TRAIN_SAMPLE)).long()
    result.train_acc.append(evaluate(model, train.select(part), ctx))
    return result


def check_finite(model: nn.Module, when: str) -> None:
    """Refuse a network with NaN or infinite weights or buffers.

    No loss sees what the last step makes of the weights, so the loss alone does not tell.

    Raises:
        FloatingPointError: naming the first such tensor.
    """
    for name, value in model.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"{name} of the network is not finite {when}; the training diverged, lower lr"
            )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: ImageSet,
    ctx: Context,
    at_test: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Return the accuracy in [0, 1] on ``data``, in eval mode, after ``at_test`` where given."""
    was_training = model.training
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=ctx.device)
    for part in chunks(len(data), TEST_BATCH):
        x, y = data.batch(part, ctx.device)
        with ctx.autocast():
            logits = model(at_test(x) if at_test is not None else x)
        correct += (logits.argmax(1) == y).sum()
    model.train(was_training)
    return int(correct) / max(len(data), 1)
