"""Measure whether a linear model can tell the classes by the perturbation alone.

With most attacks it can. Source: Yu, Zhang, Chen, Yin, Liu, "Availability Attacks Create
Shortcuts", KDD 2022, arXiv:2111.00898.

The fit is torch's LBFGS with a fixed number of steps, and not scikit-learn's LogisticRegression:
its accuracies differ (AR on the embedded set: 0.230 in place of 0.236), and the accuracy is a
recorded fact that must not move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGES = 6_000  # at most, evenly spaced; a probe of them takes some seconds and 150 MB
# At most in one perturbation; larger ones would need more images than a probe should hold.
NUMBERS = 3 * 64 * 64
STEPS = 50


def linear_probe(clean: Tensor, changed: Tensor, y: Tensor, classes: int) -> float | None:
    """Return the accuracy of logistic regression on unseen perturbations ``changed - clean``.

    The model is fitted on one half of the images and tested on the other. If a perturbation has at
    least as many numbers as there are images, any labels can be fitted, so the accuracy on the
    fitted half would tell nothing.

    Args:
        clean, changed: uint8 (N, C, H, W), of the same images.
        y: int64 (N,).
        classes: the number of classes.

    Returns:
        The accuracy in [0, 1], which is 1 / classes for noise that tells nothing; None if no image
        is changed, if there are too few images, or if they are too large.
    """
    if clean[0].numel() > NUMBERS or len(clean) < 4 * classes:
        return None
    chosen = torch.linspace(0, len(clean) - 1, min(len(clean), IMAGES)).long()
    # Shuffled, so that both halves have all classes even if the set is sorted by class.
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
    one_half, other_half = chosen[::2], chosen[1::2]
    fitted, fitted_y = _change(clean, changed, one_half), y[one_half]
    unseen, unseen_y = _change(clean, changed, other_half), y[other_half]
    largest = max(fitted.abs().max(), unseen.abs().max())
    if not largest:
        return None
    fitted /= largest
    unseen /= largest
    weight = torch.zeros(classes, fitted.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], lr=0.5, max_iter=STEPS)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(nn.functional.linear(fitted, weight, bias), fitted_y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted = nn.functional.linear(unseen, weight, bias).argmax(1)
        return float((predicted == unseen_y).float().mean())


def _change(clean: Tensor, changed: Tensor, index: Tensor) -> Tensor:
    """Return the perturbations of some images, float32 (M, C * H * W)."""
    return changed[index].float().sub_(clean[index]).flatten(1)
