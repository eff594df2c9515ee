"""Neural tangent kernels of two small networks, and the predictions of networks of infinite width.

Sources: Jacot, Gabriel, Hongler, "Neural Tangent Kernel: Convergence and Generalization in Neural
Networks", NeurIPS 2018, arXiv:1806.07572 (the tangent kernel); Lee et al., "Wide Neural Networks
of Any Depth Evolve as Linear Models Under Gradient Descent", NeurIPS 2019, arXiv:1902.06720 (the
prediction at a time of the training by gradient descent); Cho, Saul, "Kernel Methods for Deep
Learning", NIPS 2009 (ReLU); Williams, "Computing with Infinite Networks", NIPS 1996 (Erf).

An affine layer in NTK parametrisation has weights sqrt(WEIGHT / inputs) * N(0, 1) and biases
sqrt(BIAS) * N(0, 1). For a pair of images it takes the covariance S of its inputs to
WEIGHT * S + BIAS, and the tangent kernel T to WEIGHT * T + WEIGHT * S + BIAS. A nonlinearity f
takes S to E[f(u) f(v)] and T to T * E[f'(u) f'(v)], where u and v are normal with covariance S.

Everything is float64, in tiles of pairs of images, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import chunks

WEIGHT, BIAS = 1.76, 0.18  # variances
RIDGE = 1e-4  # added to the diagonal of the training kernel, in units of its mean
WINDOW, STRIDE = 5, 2  # of both convolutions
ERF_LAYERS = 5
TILE = 2**20  # pairs of images times positions at once on the CPU; 8 MB a tensor
FEATURES = 2**23  # numbers in the features of a tile's columns at most; 64 MB
DEVICE_TILE = 2**23  # the same on other devices, where the number of calls counts
SAME = 1 - 1e-12  # a larger cosine counts as an angle of 0; one level of one pixel gives 1 - 1e-8

Features = tuple[Tensor, ...]


class Kernel(ABC):
    """The tangent kernel of a network of infinite width."""

    @abstractmethod
    def features(self, x: Tensor) -> Features:
        """Compute what the kernel needs of each image, from float64 (N, C, H, W) in [0, 1]."""

    @abstractmethod
    def pairs(self, a: Features, b: Features) -> Tensor:
        """The kernel of each image of ``a`` with each of ``b``, float64 (A, B)."""


class FNN(Kernel):
    """Five dense layers with Erf and a dense output."""

    def features(self, x: Tensor) -> Features:
        flat = x.flatten(1) * math.sqrt(WEIGHT / x[0].numel())
        return flat, flat.square().sum(1) + BIAS

    def pairs(self, a: Features, b: Features) -> Tensor:
        cov = a[0] @ b[0].T + BIAS
        var_a, var_b = a[1][:, None], b[1]
        tangent = cov
        for _ in range(ERF_LAYERS):
            scale = (1 + 2 * var_a) * (1 + 2 * var_b)
            slope = 4 / math.pi / (scale - 4 * cov.square()).sqrt()
            cov = _affine(2 / math.pi * torch.asin(2 * cov / scale.sqrt()))
            tangent = WEIGHT * tangent * slope + cov
            var_a, var_b = (
                _affine(2 / math.pi * torch.asin(2 * var / (1 + 2 * var))) for var in (var_a, var_b)
            )
        return tangent


class CNN(Kernel):
    """Two convolutions with ReLU, then three dense layers with nothing between.

    The dense layers see the flattened map, hence only covariances at equal positions count. P
    positions remain after the first convolution and Q after the second.

    Args:
        height, width: of the images.
        device: of the images.
    """

    def __init__(self, height: int, width: int, device: torch.device | str = "cpu") -> None:
        self.height, self.width = height, width
        self.rows, self.columns = (
            _windows(math.ceil(size / STRIDE)).to(device) for size in (height, width)
        )

    def features(self, x: Tensor) -> Features:
        """Cut the patches of the first convolution and compute standard deviations.

        Returns:
            Patches (P, N, C * 25), and standard deviations after the first and the second
            convolution, (P, N) and (Q, N).
        """
        (top, bottom), (left, right) = _padding(self.height), _padding(self.width)
        padded = F.pad(x * math.sqrt(WEIGHT / (x.shape[1] * WINDOW**2)), (left, right, top, bottom))
        tall = padded.unfold(2, WINDOW, STRIDE)
        windows = tall.unfold(3, WINDOW, STRIDE)  # (N, C, rows, columns, 5, 5)
        patches = windows.permute(2, 3, 0, 1, 4, 5).flatten(0, 1).flatten(2)
        variance = patches.square().sum(2) + BIAS
        # ReLU halves the square of a centred variable
        second = _affine(self._average(variance / 2))
        return patches, variance.sqrt(), second.sqrt()

    def pairs(self, a: Features, b: Features) -> Tensor:
        cov = torch.baddbmm(a[0].new_tensor(BIAS), a[0], b[0].transpose(1, 2))  # (P, A, B)
        rectified, gate = _relu(cov, a[1], b[1])
        tangent = WEIGHT * self._average(cov * gate)
        cov = _affine(self._average(rectified))  # (Q, A, B)
        rectified, gate = _relu(cov, a[2], b[2])
        cov, tangent = rectified.mean(0), ((tangent + cov) * gate).mean(0)  # (A, B)
        for _ in range(3):
            cov = _affine(cov)
            tangent = WEIGHT * tangent + cov
        return tangent

    def _average(self, maps: Tensor) -> Tensor:
        """Means over the windows of the second convolution, (P, ...) -> (Q, ...)."""
        rows, columns = self.rows, self.columns
        down = (rows @ maps.reshape(rows.shape[1], -1)).view(len(rows), columns.shape[1], -1)
        both: Tensor = columns @ down  # (rows, columns, ...)
        return both.view(-1, *maps.shape[1:])


def _affine(cov: Tensor) -> Tensor:
    return WEIGHT * cov + BIAS


def _relu(cov: Tensor, deviation_a: Tensor, deviation_b: Tensor) -> tuple[Tensor, Tensor]:
    """Apply ``_ReLU``.

    Args:
        cov: (P, A, B).
        deviation_a, deviation_b: standard deviations, (P, A) and (P, B).

    Returns:
        Two tensors (P, A, B).
    """
    rectified, gate = _ReLU.apply(cov, deviation_a[:, :, None] * deviation_b[:, None, :])
    return rectified, gate


class _ReLU(torch.autograd.Function):
    """E[f(u) f(v)] and E[f'(u) f'(v)] of f = ReLU.

    Both follow from the covariance of u and v and the product of their standard deviations. The
    second has an infinite slope where the angle between u and v is 0. It counts as 0, which is
    right for an image with itself: that angle stays 0.
    """

    @staticmethod
    def forward(ctx: Any, cov: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        cosine = cov / scale
        # an image with itself gives 1 up to rounding, which the arc cosine would magnify
        cosine.masked_fill_(cosine > SAME, 1)
        gate = torch.acos(cosine).mul_(-1 / (2 * math.pi)).add_(0.5)
        sine = cosine.square().neg_().add_(1).sqrt_()
        ctx.save_for_backward(cosine, sine, gate, scale)
        return torch.addcmul(cov * gate, scale, sine, value=1 / (2 * math.pi)), gate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine, gate, scale = ctx.saved_tensors
        by_rectified, by_gate = grads
        steep = by_gate.div(sine).div_(scale).mul_(1 / (2 * math.pi)).masked_fill_(cosine == 1, 0)
        by_scale = torch.addcmul(
            (cosine * steep).neg_(), by_rectified, sine, value=1 / (2 * math.pi)
        )
        return steep.addcmul_(by_rectified, gate), by_scale


def _padding(size: int) -> tuple[int, int]:
    """Zeros before and after a side of ``size`` pixels.

    With them the output has a STRIDE-th of the side, rounded up.
    """
    total = max((math.ceil(size / STRIDE) - 1) * STRIDE + WINDOW - size, 0)
    return total // 2, total - total // 2


def _windows(size: int) -> Tensor:
    """The matrix (positions, size) that averages over windows of one side.

    Places outside the side count as zeros.
    """
    start = torch.arange(math.ceil(size / STRIDE))[:, None] * STRIDE - _padding(size)[0]
    place = torch.arange(size) - start
    return ((place >= 0) & (place < WINDOW)).double() / WINDOW


def gram(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """The kernel of each image of ``a`` with each of ``b``, float64 (A, B).

    Images are uint8, or floats in [0, 1].
    """
    out = torch.empty(len(a), len(b), dtype=torch.float64, device=a.device)
    height, width = _tile(a)
    with torch.no_grad():
        for columns in chunks(len(b), width):
            right = kernel.features(_units(b[columns]))
            for rows in chunks(len(a), height):
                out[rows, columns] = kernel.pairs(kernel.features(_units(a[rows])), right)
    return out


def pull_back(
    kernel: Kernel, a: Tensor, b: Tensor, weights: Tensor, onto: Tensor | None = None
) -> Tensor:
    """Differentiate a weighted sum of ``gram(kernel, a, b)`` with respect to ``b`` alone.

    Args:
        weights: (A, B).
        onto: where to add the gradient; zeros by default.

    Returns:
        The gradient, of the shape and type of ``b``, which are floats.
    """
    out = torch.zeros_like(b) if onto is None else onto
    height, width = _tile(a)
    for columns in chunks(len(b), width):
        x = _units(b[columns]).detach().requires_grad_(True)
        with torch.enable_grad():
            features = kernel.features(x)
        right = [value.detach().requires_grad_(True) for value in features]
        gradients = [torch.zeros_like(value) for value in features]
        for rows in chunks(len(a), height):
            left = kernel.features(_units(a[rows]))
            with torch.enable_grad():
                tile = kernel.pairs(left, tuple(right))
            parts = torch.autograd.grad(tile, right, weights[rows, columns])
            for total, part in zip(gradients, parts, strict=True):
                total += part
        out[columns] += torch.autograd.grad(features, x, gradients)[0].to(out.dtype)
    return out


def _tile(x: Tensor) -> tuple[int, int]:
    """How many images of the first and of the second set a tile has.

    It is wide since each tile computes the features of its rows anew. With large images it is
    narrow: the features of an image of 224 pixels take 7.5 MB, which a gradient needs several
    times.
    """
    positions = math.ceil(x.shape[-2] / STRIDE) * math.ceil(x.shape[-1] / STRIDE)
    pairs = max((TILE if x.device.type == "cpu" else DEVICE_TILE) // positions, 1)
    height = max(math.isqrt(pairs // 4), 1)
    width = min(pairs // height, max(FEATURES // (positions * x.shape[1] * WINDOW**2), 1))
    return max(pairs // width, 1), width


def _units(x: Tensor) -> Tensor:
    return x.double() / 255 if x.dtype == torch.uint8 else x.double()


class KernelMachine:
    """The mean of infinitely wide networks that gradient descent has trained for some time.

    The networks start at 0 on average. The loss is half the mean over images and classes of the
    squared distance to one-hot labels, and the learning rate is 1.

    Args:
        x: training images, floats in [0, 1], (N, C, H, W).
        y: their labels, int64 (N,).
        time: number of gradient steps; need not be whole.
    """

    def __init__(self, kernel: Kernel, x: Tensor, y: Tensor, classes: int, time: float) -> None:
        self.kernel, self.x = kernel, x
        self.targets = F.one_hot(y, classes).double()  # (N, K)
        own = gram(kernel, x, x)
        own.diagonal().add_(RIDGE * own.diagonal().mean())
        self.values, self.vectors = torch.linalg.eigh(own)
        self.rate = time / self.targets.numel()
        learned = self.rate * _decay(self.values * self.rate)  # (1 - exp(-value * rate)) / value
        self.weights = self.vectors @ (learned[:, None] * (self.vectors.T @ self.targets))  # (N, K)

    def predict(self, x: Tensor) -> Tensor:
        """Logits, float64 (V, K), of images (V, C, H, W), uint8 or floats in [0, 1]."""
        logits: Tensor = gram(self.kernel, x, self.x) @ self.weights
        return logits

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate the summed cross-entropy of images with respect to the training images.

        Args:
            x: images, uint8 or floats in [0, 1], (V, C, H, W).
            y: their labels, int64 (V,).

        Returns:
            The gradient, of the shape and type of the training images, and the logits of ``x``,
            float64 (V, K).
        """
        cross = gram(self.kernel, x, self.x)  # (V, N)
        logits = cross @ self.weights
        error = logits.softmax(1) - F.one_hot(y, logits.shape[1])
        inner = self.vectors.T @ (cross.T @ error) @ (self.vectors.T @ self.targets).T
        inner = (inner + inner.T) / 2 * self.rate**2 * _decay_slopes(self.values * self.rate)
        by_own = self.vectors @ inner @ self.vectors.T
        by_own.diagonal().add_(RIDGE * by_own.diagonal().mean())
        by_cross = error @ self.weights.T
        # the training kernel and its weights are symmetric: images on its other side add as much
        gradient = pull_back(self.kernel, x, self.x, by_cross)
        return pull_back(self.kernel, self.x, self.x, 2 * by_own, onto=gradient), logits


def _decay(z: Tensor) -> Tensor:
    """(1 - exp(-z)) / z."""
    return -torch.expm1(-z) / z


def _decay_slopes(z: Tensor) -> Tensor:
    """Divided differences (N, N) of ``_decay`` between all pairs of ``z`` (N,).

    They are the derivative of a matrix function in its eigenbasis.
    """
    gap, middle = z[:, None] - z, (z[:, None] + z) / 2
    value = _decay(z)
    small = -1 / 2 + middle / 3 - middle**2 / 8 + middle**3 / 30 - middle**4 / 144
    slope = torch.where(middle < 1e-2, small, (torch.exp(-middle) * (1 + middle) - 1) / middle**2)
    return torch.where(
        gap.abs() < 1e-5 * middle.clamp(min=1), slope, (value[:, None] - value) / gap
    )
