"""NTGA: kernels against finite networks, the prediction against its definition, gradients against differences, and the attack itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_set
from torch import Tensor
from torch.nn import functional as F

import benchmark.resume
from attacks import _ntk
from attacks._ntk import BIAS, CNN, FNN, RIDGE, WEIGHT, Kernel, KernelMachine, gram, pull_back
from attacks.ntga import NTGA
from benchmark import Context, ImageSet
from benchmark.check import toy_set
from benchmark.data import DatasetInfo, to_float

EPS = 8 / 255
SMALL = NTGA(steps=2, block=16, t=64.0)
KERNELS = pytest.mark.parametrize("kernel", [CNN(8, 8), FNN()], ids=["cnn", "fnn"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """40 images of 3 classes, 8x8 pixels."""
    return toy_set(classes=3, per_class=14, size=8).select(torch.arange(40))


def floats(n: int, seed: int = 0, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def machine_of(attack: NTGA, data: ImageSet, index: Tensor) -> KernelMachine:
    return attack._machine(to_float(data.x[index]), data.y[index], data.info)


def faint_set() -> ImageSet:
    """60 images of 3 classes, 8x8 pixels, whose class pattern is weaker than the noise and weaker than the budget."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = 128 + 6 * torch.randn(3, 3, 8, 8, generator=generator)[y] + 12 * torch.randn(60, 3, 8, 8, generator=generator)
    return ImageSet(x.round().to(torch.uint8), y, DatasetInfo("faint", 3, ("a", "b", "c"), 3, 8, 8, hflip=False))


# The kernels


class Finite:
    """Random networks of a kernel's shape, in NTK parametrisation; ``weights`` are what they are made of."""

    def __init__(self, width: int, seed: int) -> None:
        self.width, self.generator = width, torch.Generator().manual_seed(seed)
        self.weights: list[Tensor] = []

    def draw(self, *shape: int) -> tuple[Tensor, Tensor]:
        weight, bias = (torch.randn(size, generator=self.generator).requires_grad_(True) for size in (shape, shape[:1]))
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
            x = F.conv2d(F.pad(x, (1, 2, 1, 2)), *self.draw(self.width, x.shape[1], 5, 5), stride=2).relu()
        x = x.flatten(1)
        for size in (self.width, self.width, 1):
            x = F.linear(x, *self.draw(size, x.shape[1]))
        return x[:, 0]


@pytest.mark.parametrize(("name", "kernel", "width", "inits"), [("cnn", CNN(8, 8), 256, 4), ("fnn", FNN(), 1024, 8)])
def test_kernel_is_that_of_wide_networks(name: str, kernel: Kernel, width: int, inits: int) -> None:
    x = floats(3)
    x[1] = 0.7 * x[0] + 0.3 * x[1]  # pairs of different angles
    found = []
    for seed in range(inits):
        network = Finite(width, seed)
        outputs = getattr(network, name)(x.float())
        slopes = [torch.autograd.grad(output, network.weights, retain_graph=True) for output in outputs]
        flat = torch.stack([torch.cat([slope.flatten() for slope in row]) for row in slopes])
        found.append(flat @ flat.T)
    torch.testing.assert_close(torch.stack(found).mean(0).double(), gram(kernel, x, x), rtol=0.05, atol=0)


def naive_fnn(a: Tensor, b: Tensor) -> float:
    """The kernel of two images, whose expectations over a normal pair are sums over a grid."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    first, second = torch.from_numpy(nodes)[:, None], torch.from_numpy(nodes)
    weight = torch.from_numpy(np.outer(weights, weights) / (2 * math.pi))

    def expectation(f: Callable[[Tensor], Tensor], p: float, q: float, cov: float) -> float:
        u, v = math.sqrt(p) * first, cov / math.sqrt(p) * first + math.sqrt(max(q - cov**2 / p, 0)) * second
        return float((weight * f(u) * f(v)).sum())

    cov, var_a, var_b = (WEIGHT * float((p * q).mean()) + BIAS for p, q in ((a, b), (a, a), (b, b)))
    tangent = cov
    for _ in range(5):
        slope = expectation(lambda u: 2 / math.sqrt(math.pi) * torch.exp(-(u**2)), var_a, var_b, cov)
        cov, var_a, var_b = (
            WEIGHT * expectation(torch.erf, *three) + BIAS for three in ((var_a, var_b, cov), (var_a, var_a, var_a), (var_b, var_b, var_b))
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
        return [[i for i in range(2 * k - before, 2 * k - before + 5) if 0 <= i < size] for k in range(out)]

    def convolve(cov: Map, height: int, width: int) -> Map:
        return {
            (r, c): sum(cov[i, j] for i in rows for j in columns) / 25
            for r, rows in enumerate(windows(height))
            for c, columns in enumerate(windows(width))
        }

    def relu(cov: float, var_a: float, var_b: float) -> tuple[float, float]:
        scale = math.sqrt(var_a * var_b)
        angle = math.acos(min(1.0, cov / scale))
        return scale * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi), (math.pi - angle) / (2 * math.pi)

    height, width = a.shape[1:]
    means = [(p * q).mean(0).tolist() for p, q in ((a, b), (a, a), (b, b))]
    covs: list[Map] = [{(i, j): mean[i][j] for i in range(height) for j in range(width)} for mean in means]
    tangent = dict.fromkeys(covs[0], 0.0)
    for _ in range(2):
        covs = [{place: WEIGHT * value + BIAS for place, value in convolve(cov, height, width).items()} for cov in covs]
        tangent = {place: WEIGHT * value + covs[0][place] for place, value in convolve(tangent, height, width).items()}
        height, width = -(-height // 2), -(-width // 2)
        found = {place: relu(*(cov[place] for cov in covs)) for place in tangent}
        tangent = {place: tangent[place] * found[place][1] for place in tangent}
        covs = [{place: found[place][0] for place in found}, *({place: value / 2 for place, value in cov.items()} for cov in covs[1:])]
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
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)  # the naive acos loses half of the digits where images are the same


@KERNELS
def test_kernel_is_symmetric_and_has_no_negative_eigenvalue(kernel: Kernel) -> None:
    x = torch.cat([floats(20), floats(2), torch.zeros(2, 3, 8, 8), torch.ones(1, 3, 8, 8)])  # doubles, and flat images
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


def test_prediction_is_that_of_gradient_descent_in_small_steps(machine: KernelMachine, images: ImageSet) -> None:
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
    torch.testing.assert_close(logits, KernelMachine(kernel, x, y, 4, time).predict(held_out), rtol=0, atol=0)
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
        [1e-9, 1e-6, 1e-6 + 1e-13, 5e-3, 9.9e-3, 1.01e-2, 0.5, 0.5, 0.5 + 3e-6, 0.5 + 3e-5, 7, 7.0001, 300, 1e5], dtype=torch.float64
    )

    def exact(a: float, b: float) -> float:
        p, q = Decimal(a), Decimal(b)
        if p == q:
            return float(((1 + p) * (-p).exp() - 1) / p**2)
        return float(((1 - (-p).exp()) / p - (1 - (-q).exp()) / q) / (p - q))

    with localcontext(prec=60):
        expected = torch.tensor([[exact(a, b) for b in z.tolist()] for a in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(_ntk._decay_slopes(z), expected, rtol=1e-9, atol=0)


# The attack


@pytest.fixture(scope="module")
def poisoned(images: ImageSet) -> tuple[ImageSet, Context]:
    ctx = Context(seed_axes=("ntga", 0))
    return SMALL.poison(images, ctx), ctx


def delta_of(clean: ImageSet, poisoned: ImageSet) -> Tensor:
    return poisoned.x.int() - clean.x.int()


def test_every_block_is_of_other_images_than_those_held_out_for_it(images: ImageSet) -> None:
    work, order = SMALL._work(images, Context())
    assert order.sort().values.tolist() == list(range(40))
    assert [len(block) for block, _ in work] == [16, 16, 8]  # 32 and the 8 held out
    assert torch.equal(torch.cat([block for block, _ in work]), order)
    for block, held_out in work:
        assert len(held_out) == 8
        assert not set(block.tolist()) & set(held_out.tolist())
    assert torch.equal(work[0][1], order[32:])
    few, _ = replace(SMALL, validation_images=3)._work(images, Context())
    assert [torch.equal(held_out, whole[:3]) for (_, held_out), (_, whole) in zip(few, work, strict=True)] == [True] * 3


def test_blocks_are_of_equal_size() -> None:
    work, _ = NTGA(cover="train")._work(random_set(50_000, 10, 1, 1, 1), Context())
    assert len(work) == 79
    assert {len(block) for block, _ in work} == {506, 507}
    assert {len(held_out) for _, held_out in work} == {10_000}


def test_budget_holds_and_every_image_changes(images: ImageSet, poisoned: tuple[ImageSet, Context]) -> None:
    delta = delta_of(images, poisoned[0])
    assert int(delta.abs().max()) == 8
    assert bool((delta != 0).flatten(1).any(1).all())
    assert 0.4 < float((delta[delta != 0] < 0).double().mean()) < 0.6
    assert torch.equal(poisoned[0].y, images.y)


@pytest.mark.parametrize("kernel", ["cnn", "fnn"])
def test_what_is_learned_from_a_block_no_longer_holds(kernel: str) -> None:
    clean, ctx, attack = faint_set(), Context(), NTGA(kernel=kernel, block=24, steps=3, t=4096.0)
    poisoned = attack.poison(clean, ctx)
    work, _ = attack._work(clean, ctx)
    facts = []
    for block, held_out in work:
        y = clean.y[held_out]
        logits = [machine_of(attack, data, block).predict(clean.x[held_out]) for data in (clean, poisoned)]
        facts.append(
            [
                *(float(F.cross_entropy(values, y)) for values in logits),
                *(float((values.argmax(1) == y).double().mean()) for values in logits),
            ]
        )
    assert all(loss_after > loss and acc_after < acc - 0.3 for loss, loss_after, acc, acc_after in facts)
    names = ("loss_clean", "loss_protected", "acc_clean", "acc_protected")
    means = [sum(values) / len(work) for values in zip(*facts, strict=True)]
    assert [ctx.notes[f"validation_{name}"] for name in names] == pytest.approx(means, abs=0.01)  # the notes are of images before rounding
    assert (ctx.notes["blocks"], ctx.notes["validation_images"]) == (3, 12)


def climbed(attack: NTGA, data: ImageSet, starts: int, step: float) -> Tensor:
    """The bytes that ``starts`` sign steps lead to, block by block."""
    out = data.x.clone()
    for block, held_out in attack._work(data, Context())[0]:
        x = clean = to_float(data.x[block])
        for _ in range(starts):
            gradient, _ = attack._machine(x, data.y[block], data.info).gradient(data.x[held_out], data.y[held_out])
            x = clean + (x + step * gradient.sign()).clamp(0, 1).sub(clean).clamp(-EPS, EPS)
        out[block] = (x * 255).round().to(torch.uint8)
    return out


def test_official_is_one_step_of_the_whole_budget(images: ImageSet) -> None:
    result = replace(SMALL, mode="official").poison(images, Context())
    assert torch.equal(result.x, climbed(SMALL, images, 1, EPS))
    delta = delta_of(images, result)
    clipped = (result.x == 0) | (result.x == 255)
    assert bool((delta.abs() == 8)[~clipped].all())  # no gradient is 0 here
    assert bool((delta != 0)[(images.x > 0) & (images.x < 255)].all())


def test_iterated_goes_on_from_the_moved_images(images: ImageSet) -> None:
    result = SMALL.poison(images, Context())
    assert (result.x.int() - climbed(SMALL, images, 2, 1.1 * EPS / 2).int()).abs().max() <= 1
    assert bool((result.x == climbed(SMALL, images, 2, 1.1 * EPS / 2)).double().mean() > 0.999)
    assert result.fingerprint != replace(SMALL, mode="official").poison(images, Context()).fingerprint


def test_cover_train_leaves_the_held_out_images_clean_and_says_so(images: ImageSet, poisoned: tuple[ImageSet, Context]) -> None:
    ctx = Context(seed_axes=("ntga", 0))
    result = replace(SMALL, cover="train").poison(images, ctx)
    order, covered = ctx.kept["split"]["order"], ctx.kept["split"]["covered"]
    assert (ctx.notes["coverage"], ctx.notes["blocks"]) == (0.8, 2)
    assert sorted(order[:32].tolist()) == covered.nonzero().flatten().tolist()
    assert torch.equal((delta_of(images, result) != 0).flatten(1).any(1), covered)
    whole, whole_ctx = poisoned
    assert torch.equal(result.x[covered], whole.x[covered])  # the second pass changes nothing of the first
    assert bool(whole_ctx.kept["split"]["covered"].all())
    assert whole_ctx.notes["coverage"] == 1.0


def test_input_order_is_kept(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images given in another order, dealt the same, come out the same, each in its place."""
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    result = SMALL.poison(images, Context())
    work, order = SMALL._work(images, Context())
    place = shuffle.argsort()
    moved = [(place[block], place[held_out]) for block, held_out in work], place[order]
    monkeypatch.setattr(NTGA, "_work", lambda self, data, ctx: moved)
    assert torch.equal(SMALL.poison(images.select(shuffle), Context()).x, result.x[shuffle])


def test_a_killed_run_goes_on_to_the_same_bytes(
    images: ImageSet, poisoned: tuple[ImageSet, Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark.resume, "SAVE_EVERY", 0)
    calls: list[int] = []
    gradient = KernelMachine.gradient

    def dying(self: KernelMachine, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return gradient(self, x, y)

    monkeypatch.setattr(KernelMachine, "gradient", dying)
    with pytest.raises(KeyboardInterrupt):
        SMALL.poison(images, Context(seed_axes=("ntga", 0), scratch=tmp_path))
    ctx = Context(seed_axes=("ntga", 0), scratch=tmp_path)
    resumed = SMALL.poison(images, ctx)
    assert len(calls) == 4 + 4  # the first of three blocks is not done again
    assert resumed.fingerprint == poisoned[0].fingerprint
    assert ctx.notes == poisoned[1].notes


def test_one_channel_a_missing_class_and_odd_sides() -> None:
    data = random_set(11, 3, channels=1, height=9, width=5)
    data = data.select((data.y != 1).nonzero().flatten())
    result = NTGA(steps=1, holdout=0.5).poison(data, Context())
    assert int(delta_of(data, result).abs().max()) == 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"kernel": "resnet"}, 'kernel="resnet", expected cnn or fnn'),
        ({"mode": "pgd"}, "expected iterated or official"),
        ({"cover": "test"}, "expected all or train"),
        ({"steps": 0}, "at least 1"),
        ({"block": 0}, "at least 1"),
        ({"validation_images": -1}, "at least 0"),
        ({"t": math.inf}, "finite number of gradient steps"),
        ({"holdout": 1.0}, "less than 1"),
    ],
)
def test_bad_parameters(parameters: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NTGA(**parameters)  # type: ignore[arg-type]


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        NTGA().poison(random_set(1, 2), Context())
