"""Neural tangent kernels.

Kernels are compared with finite networks, the prediction with its definition, gradients with
differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import _ntk
from attacks._ntk import BIAS, CNN, FNN, RIDGE, WEIGHT, Kernel, KernelMachine, gram, pull_back
from benchmark import ImageSet
from benchmark.data import to_float
from support.small_ntga import (  # noqa: F401  one is a fixture
    EPS,
    KERNELS,
    SMALL,
    faint_set,
    floats,
    machine_of,
    small_images,
)

# The kernels


class Finite:
    """Random networks of a kernel's shape, with the ``weights`` of NTK parametrisation."""

    def __init__(self, width: int, seed: int) -> None:
        self.width, self.generator = width, torch.Generator().manual_seed(seed)
        self.weights: list[Tensor] = []

    def draw(self, *shape: int) -> tuple[Tensor, Tensor]:
        weight, bias = (
            torch.randn(size, generator=self.generator).requires_grad_(True)
            for size in (shape, shape[:1])
        )
        self.weights += [weight, bias]
        return weight * math.sqrt(WEIGHT / math.prod(shape[1:])), bias * math.sqrt(BIAS)

    def fnn(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for _ in range(5):
            x = F.linear(x, *self.draw(self.width, x.shape[1])).erf()
        return F.linear(x, *self.draw(1, self.width))[:, 0]

    def cnn(self, x: Tensor) -> Tensor:
        """For images of 8x8: SAME padding is (1, 2) at 8 and at 4 pixels."""
        for _ in range(2):
            x = F.conv2d(
                F.pad(x, (1, 2, 1, 2)), *self.draw(self.width, x.shape[1], 5, 5), stride=2
            ).relu()
        x = x.flatten(1)
        for size in (self.width, self.width, 1):
            x = F.linear(x, *self.draw(size, x.shape[1]))
        return x[:, 0]


@pytest.mark.parametrize(
    ("name", "kernel", "width", "inits"), [("cnn", CNN(8, 8), 256, 4), ("fnn", FNN(), 1024, 8)]
)
def test_kernel_is_that_of_wide_networks(name: str, kernel: Kernel, width: int, inits: int) -> None:
    x = floats(3)
    x[1] = 0.7 * x[0] + 0.3 * x[1]  # pairs of different angles
    found = []
    for seed in range(inits):
        network = Finite(width, seed)
        outputs = getattr(network, name)(x.float())
        slopes = [
            torch.autograd.grad(output, network.weights, retain_graph=True) for output in outputs
        ]
        flat = torch.stack([torch.cat([slope.flatten() for slope in row]) for row in slopes])
        found.append(flat @ flat.T)
    torch.testing.assert_close(
        torch.stack(found).mean(0).double(), gram(kernel, x, x), rtol=0.05, atol=0
    )


def naive_fnn(a: Tensor, b: Tensor) -> float:
    """The kernel of two images, whose expectations over a normal pair are sums over a grid."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    first, second = torch.from_numpy(nodes)[:, None], torch.from_numpy(nodes)
    weight = torch.from_numpy(np.outer(weights, weights) / (2 * math.pi))

    def expectation(f: Callable[[Tensor], Tensor], p: float, q: float, cov: float) -> float:
        u, v = (
            math.sqrt(p) * first,
            cov / math.sqrt(p) * first + math.sqrt(max(q - cov**2 / p, 0)) * second,
        )
        return float((weight * f(u) * f(v)).sum())

    cov, var_a, var_b = (WEIGHT * float((p * q).mean()) + BIAS for p, q in ((a, b), (a, a), (b, b)))
    tangent = cov
    for _ in range(5):
        slope = expectation(
            lambda u: 2 / math.sqrt(math.pi) * torch.exp(-(u**2)), var_a, var_b, cov
        )
        cov, var_a, var_b = (
            WEIGHT * expectation(torch.erf, *three) + BIAS
            for three in ((var_a, var_b, cov), (var_a, var_a, var_a), (var_b, var_b, var_b))
        )
        tangent = WEIGHT * tangent * slope + cov
    return tangent


def test_fnn_kernel_is_the_naive_one() -> None:
    a, b = floats(2), floats(2, seed=1)
    expected = torch.tensor([[naive_fnn(p, q) for q in b] for p in a], dtype=torch.float64)
    torch.testing.assert_close(gram(FNN(), a, b), expected, rtol=1e-6, atol=0)


Map = dict[tuple[int, int], float]


def naive_cnn(a: Tensor, b: Tensor) -> float:
    """The kernel of two images (C, H, W), position by position."""

    def windows(size: int) -> list[list[int]]:
        out = -(-size // 2)
        before = max((out - 1) * 2 + 5 - size, 0) // 2
        return [
            [i for i in range(2 * k - before, 2 * k - before + 5) if 0 <= i < size]
            for k in range(out)
        ]

    def convolve(cov: Map, height: int, width: int) -> Map:
        return {
            (r, c): sum(cov[i, j] for i in rows for j in columns) / 25
            for r, rows in enumerate(windows(height))
            for c, columns in enumerate(windows(width))
        }

    def relu(cov: float, var_a: float, var_b: float) -> tuple[float, float]:
        scale = math.sqrt(var_a * var_b)
        angle = math.acos(min(1.0, cov / scale))
        return scale * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi), (
            math.pi - angle
        ) / (2 * math.pi)

    height, width = a.shape[1:]
    means = [(p * q).mean(0).tolist() for p, q in ((a, b), (a, a), (b, b))]
    covs: list[Map] = [
        {(i, j): mean[i][j] for i in range(height) for j in range(width)} for mean in means
    ]
    tangent = dict.fromkeys(covs[0], 0.0)
    for _ in range(2):
        covs = [
            {place: WEIGHT * value + BIAS for place, value in convolve(cov, height, width).items()}
            for cov in covs
        ]
        tangent = {
            place: WEIGHT * value + covs[0][place]
            for place, value in convolve(tangent, height, width).items()
        }
        height, width = -(-height // 2), -(-width // 2)
        found = {place: relu(*(cov[place] for cov in covs)) for place in tangent}
        tangent = {place: tangent[place] * found[place][1] for place in tangent}
        covs = [
            {place: found[place][0] for place in found},
            *({place: value / 2 for place, value in cov.items()} for cov in covs[1:]),
        ]
    cov, total = (sum(values.values()) / (height * width) for values in (covs[0], tangent))
    for _ in range(3):
        cov = WEIGHT * cov + BIAS
        total = WEIGHT * total + cov
    return total


@pytest.mark.parametrize("shape", [(1, 7, 10), (3, 5, 3), (2, 1, 1)])
def test_cnn_kernel_is_the_naive_one_at_odd_sizes(shape: tuple[int, int, int]) -> None:
    a, b = floats(2, shape=shape), floats(2, seed=1, shape=shape)
    found = gram(CNN(*shape[1:]), a, torch.cat([b, a[:1]]))
    expected = torch.tensor([[naive_cnn(p, q) for q in (*b, a[0])] for p in a], dtype=torch.float64)
    torch.testing.assert_close(
        found, expected, rtol=1e-7, atol=0
    )  # the naive acos loses half of the digits where images are the same


@KERNELS
def test_kernel_is_symmetric_and_has_no_negative_eigenvalue(kernel: Kernel) -> None:
    x = torch.cat(
        [floats(20), floats(2), torch.zeros(2, 3, 8, 8), torch.ones(1, 3, 8, 8)]
    )  # doubles, and flat images
    k = gram(kernel, x, x)
    torch.testing.assert_close(k, k.T, rtol=1e-12, atol=0)
    values = torch.linalg.eigvalsh(k)
    assert values.min() > -1e-6 * values.max()
    assert values[5] > 1e-6 * values.max()


@KERNELS
def test_tiles_change_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, weights = floats(9), floats(7, seed=1), floats(9, seed=2, shape=(7,))
    whole = gram(kernel, a, b), pull_back(kernel, a, b, weights)
    monkeypatch.setattr(_ntk, "TILE", 16 * 10)  # 10 pairs: one row of 10 columns, or less
    assert _ntk._tile(a) == (1, 10)
    monkeypatch.setattr(_ntk, "TILE", 16 * 20)
    assert _ntk._tile(a) == (2, 10)
    monkeypatch.setattr(_ntk, "_tile", lambda x: (2, 3))
    torch.testing.assert_close(gram(kernel, a, b), whole[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(pull_back(kernel, a, b, weights), whole[1], rtol=1e-9, atol=1e-12)


def test_bytes_and_floats_are_the_same_images(images: ImageSet) -> None:
    as_bytes, as_floats = images.x[:4], images.x[:4].double() / 255
    assert torch.equal(gram(FNN(), as_bytes, as_bytes), gram(FNN(), as_floats, as_floats))


# The machine


@pytest.fixture
def machine(images: ImageSet) -> KernelMachine:
    return KernelMachine(CNN(8, 8), to_float(images.x[:12]), images.y[:12], 3, 50.0)


def regularised(machine: KernelMachine) -> Tensor:
    k = gram(machine.kernel, machine.x, machine.x)
    return k + RIDGE * k.diagonal().mean() * torch.eye(len(k), dtype=torch.float64)


def test_prediction_is_that_of_gradient_descent_in_small_steps(
    machine: KernelMachine, images: ImageSet
) -> None:
    """Steps of h down half the mean squared error over 12 images and 3 outputs, 50 / h of them."""
    k, h = regularised(machine), 0.01
    targets = F.one_hot(images.y[:12], 3).double()
    weights = torch.zeros_like(targets)
    for _ in range(round(50 / h)):
        weights += h * (targets - k @ weights) / (12 * 3)
    expected = gram(machine.kernel, images.x[12:], machine.x) @ weights
    torch.testing.assert_close(machine.predict(images.x[12:]), expected, rtol=2e-3, atol=1e-4)


@KERNELS
def test_prediction_after_all_time_is_ridge_regression(kernel: Kernel, images: ImageSet) -> None:
    machine = KernelMachine(kernel, to_float(images.x[:12]), images.y[:12], 3, 1e9)
    weights = torch.linalg.solve(regularised(machine), F.one_hot(images.y[:12], 3).double())
    expected = gram(kernel, images.x[12:], machine.x) @ weights
    torch.testing.assert_close(machine.predict(images.x[12:]), expected, rtol=1e-8, atol=1e-8)


@KERNELS
@pytest.mark.parametrize("time", [8.0, 4096.0, 1e9])
def test_gradient_is_that_of_finite_differences(kernel: Kernel, time: float) -> None:
    x, held_out = floats(7), floats(5, seed=1)
    y, y_out = torch.arange(7) % 4, torch.arange(5) % 4
    gradient, logits = KernelMachine(kernel, x, y, 4, time).gradient(held_out, y_out)
    torch.testing.assert_close(
        logits, KernelMachine(kernel, x, y, 4, time).predict(held_out), rtol=0, atol=0
    )
    for seed in range(3):
        direction = floats(7, seed=2 + seed) - 0.5
        h = 1e-5

        def loss(shift: float, direction: Tensor = direction) -> float:
            logits = KernelMachine(kernel, x + shift * direction, y, 4, time).predict(held_out)
            return float(F.cross_entropy(logits, y_out, reduction="sum"))

        difference = (8 * (loss(h) - loss(-h)) - loss(2 * h) + loss(-2 * h)) / (12 * h)
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-6)


def test_divided_differences_are_exact() -> None:
    """Large, small, near and equal values, against the closed form in 60 digits."""
    z = torch.tensor(
        [
            1e-9,
            1e-6,
            1e-6 + 1e-13,
            5e-3,
            9.9e-3,
            1.01e-2,
            0.5,
            0.5,
            0.5 + 3e-6,
            0.5 + 3e-5,
            7,
            7.0001,
            300,
            1e5,
        ],
        dtype=torch.float64,
    )

    def exact(a: float, b: float) -> float:
        p, q = Decimal(a), Decimal(b)
        if p == q:
            return float(((1 + p) * (-p).exp() - 1) / p**2)
        return float(((1 - (-p).exp()) / p - (1 - (-q).exp()) / q) / (p - q))

    with localcontext(prec=60):
        expected = torch.tensor(
            [[exact(a, b) for b in z.tolist()] for a in z.tolist()], dtype=torch.float64
        )
    torch.testing.assert_close(_ntk._decay_slopes(z), expected, rtol=1e-9, atol=0)
