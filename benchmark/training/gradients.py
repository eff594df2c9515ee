"""Compute gradients with respect to images, for attacks and adversarial training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.api import Context


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode without weight gradients, and restore both at the end.

    Eval mode keeps BatchNorm's buffers still and makes the images of a batch independent of each
    other; frozen weights save the weight half of the backward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(weight, weight.requires_grad) for weight in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, flag in flags:
            weight.requires_grad_(flag)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Return the gradient of the summed cross-entropy with respect to ``x``, and the logits.

    The loss is the sum, not the mean, so that the size of the batch does not change an image's
    gradient.

    Args:
        x: float (B, C, H, W) in [0, 1].
        y: int64 (B,) or float (B, K).
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad(), ctx.autocast():
        logits = model(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient, logits.detach()
