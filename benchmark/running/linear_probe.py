"""Measure whether a linear model can tell the classes by the perturbation alone.

Most attacks have this property. Source: Yu, Zhang, Chen, Yin, Liu, "Availability Attacks Create
Shortcuts", KDD 2022, arXiv:2111.00898.

The fit is torch's LBFGS with a fixed number of steps, and not scikit-learn's LogisticRegression:
its accuracies differ (AR on the embedded set: 0.230 in place of 0.236), and the accuracy is a
recorded fact that must not move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGES = 6_000  # at most, evenly spaced; a probe of them takes some seconds and 150 MB
NUMBERS = (
    3 * 64 * 64
)  # in one perturbation at most; larger ones would need more images than a probe should hold
STEPS = 50


def linear_probe(clean: Tensor, changed: Tensor, y: Tensor, classes: int) -> float | None:
    """Accuracy of multinomial logistic regression on perturbations ``changed - clean`` that it was
    not fitted to.

    Fitted on every other image and tested on those between: with no more images than numbers in a
    perturbation, any labels can be fitted, and the accuracy on the fitted half would tell nothing.

    Args:
        clean, changed: uint8 (N, C, H, W), of the same images.
        y: int64 (N,).

    Returns:
        In [0, 1], 1 / classes for noise that tells nothing; None if there is no change, or too few
        images or too large ones to tell.
    """
    if clean[0].numel() > NUMBERS or len(clean) < 4 * classes:
        return None
    chosen = torch.linspace(0, len(clean) - 1, min(len(clean), IMAGES)).long()
    chosen = chosen[
        torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    ]  # so that sorted classes are in both halves
    (fitted, fitted_y), (unseen, unseen_y) = (
        (_change(clean, changed, part), y[part]) for part in (chosen[::2], chosen[1::2])
    )
    largest = max(fitted.abs().max(), unseen.abs().max())
    if not largest:
        return None
    fitted /= largest
    unseen /= largest
    weight, bias = (
        torch.zeros(classes, fitted.shape[1], requires_grad=True),
        torch.zeros(classes, requires_grad=True),
    )
    optimizer = torch.optim.LBFGS([weight, bias], lr=0.5, max_iter=STEPS)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(nn.functional.linear(fitted, weight, bias), fitted_y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(
            (nn.functional.linear(unseen, weight, bias).argmax(1) == unseen_y).float().mean()
        )


def _change(clean: Tensor, changed: Tensor, index: Tensor) -> Tensor:
    """Perturbations of some images, float32 (M, C * H * W)."""
    return changed[index].float().sub_(clean[index]).flatten(1)
