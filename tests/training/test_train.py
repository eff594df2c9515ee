"""Training and evaluation of victims: schedules by hand, batches against a loop, seeds, errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark import Context, Defense, ImageSet
from benchmark.catalogue.protocol import PROTOCOLS, Protocol, get_protocol
from benchmark.contract import toy_set
from benchmark.data import to_float
from benchmark.training.loader import Batches
from benchmark.training.train import build_victim, evaluate, fit, learning_rate, smoothed
from benchmark.victims._resnet import Pointwise
from support.sets import random_set

CPU = torch.device("cpu")
SHORT = Protocol(
    "short",
    "for tests",
    epochs=4,
    batch_size=20,
    lr=0.1,
    schedule="onecycle",
    crop=1,
    nesterov=True,
    precision="fp32",
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cosine_is_constant_within_an_epoch_and_follows_the_half_wave() -> None:
    protocol = Protocol("p", "", epochs=4, lr=0.1, schedule="cosine")
    rates = [learning_rate(protocol, step, 3) for step in range(12)]
    expected = [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]
    assert rates == pytest.approx([rate for rate in expected for _ in range(3)])


def test_onecycle_rises_for_a_quarter_and_falls_to_almost_nothing() -> None:
    protocol = Protocol("p", "", epochs=2, lr=0.4, schedule="onecycle")
    rates = [learning_rate(protocol, step, 4) for step in range(8)]
    falling = [0.4 * ((1 - done / 8) / 0.75 + 1e-3) for done in range(3, 9)]
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[2:] == pytest.approx(falling)
    assert 0 < rates[-1] < 0.001


def test_protocols_hold_the_papers_values() -> None:
    std = get_protocol("std60")
    assert (std.epochs, std.batch_size, std.lr, std.momentum, std.weight_decay) == (
        60,
        128,
        0.1,
        0.9,
        5e-4,
    )
    assert (std.schedule, std.crop, std.flip, std.clip, std.nesterov) == (
        "cosine",
        4,
        True,
        5.0,
        False,
    )
    assert {"std60", "lite", "quick", "fast"} <= set(PROTOCOLS)


def test_the_protocol_fast_has_the_values_of_airbench94() -> None:
    """The release states rate and weight decay for steps as long as plain SGD's, and summed losses.

    With Nesterov momentum m, steps are 1 + 1 / (1 - m) times as long.
    """
    fast = get_protocol("fast")
    longer = 1 + 1 / (1 - fast.momentum)
    assert fast.lr == pytest.approx(11.5 * fast.batch_size / 1024 / longer, rel=2e-3)
    assert fast.weight_decay == pytest.approx(0.0153 / 11.5, rel=0.03)
    assert (fast.epochs, fast.momentum, fast.nesterov) == (8, 0.85, True)
    assert (fast.crop, fast.flip, fast.label_smoothing, fast.clip) == (2, True, 0.2, 0.0)


def test_protocol_errors() -> None:
    with pytest.raises(ValueError, match='unknown protocol "quik"; did you mean "quick"'):
        get_protocol("quik")
    with pytest.raises(ValueError, match='no setting "epoch"; did you mean "epochs"'):
        SHORT.with_values({"epoch": 3})
    with pytest.raises(ValueError, match=r"epochs=1\.5 is not of type int"):
        SHORT.with_values({"epochs": 1.5})
    with pytest.raises(ValueError, match="epochs=0, expected at least 1"):
        SHORT.with_values({"epochs": 0})
    with pytest.raises(ValueError, match='schedule="step", expected cosine or onecycle'):
        SHORT.with_values({"schedule": "step"})
    assert SHORT.with_values({"lr": 1}).lr == 1.0
    with pytest.raises(ValueError, match=r"label_smoothing=1, expected 0 <= label_smoothing < 1"):
        SHORT.with_values({"label_smoothing": 1.0})


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True), (0, False)])
def test_batches_equal_a_loop_over_images_with_the_same_draws(crop: int, flip: bool) -> None:
    data = random_set(23, 3, height=6, width=5)
    batches = Batches(data, 8, CPU, generator(), crop=crop, flip=flip)
    draws = generator()
    order = torch.randperm(23, generator=draws)
    for start, (x, y, index) in zip(range(0, 23, 8), batches, strict=True):
        count = len(index)
        assert torch.equal(index, order[start : start + 8])
        assert torch.equal(y, data.y[index])
        top = left = torch.full((count,), crop)
        if crop:
            top = torch.randint(2 * crop + 1, (count,), generator=draws)
            left = torch.randint(2 * crop + 1, (count,), generator=draws)
        mirrored = torch.randint(2, (count,), generator=draws) if flip else torch.zeros(count)
        for i in range(count):
            padded = torch.zeros(3, 6 + 2 * crop, 5 + 2 * crop, dtype=torch.uint8)
            padded[:, crop : crop + 6, crop : crop + 5] = data.x[index[i]]
            image = padded[:, top[i] : top[i] + 6, left[i] : left[i] + 5] if crop else padded
            expected = image.flip(-1) if mirrored[i] else image
            assert torch.equal(x[i], to_float(expected))


def test_an_epoch_covers_each_image_once_and_epochs_differ() -> None:
    data = random_set(50, 5)
    batches = Batches(data, 16, CPU, generator())
    first, second = (torch.cat([index for _, _, index in batches]) for _ in range(2))
    assert first.sort().values.tolist() == list(range(50)) == second.sort().values.tolist()
    assert not torch.equal(first, second)
    assert len(batches) == 4


def test_incomplete_last_batch_is_dropped_unless_alone() -> None:
    data = random_set(50, 5)
    assert [len(y) for _, y, _ in Batches(data, 16, CPU, drop_last=True)] == [16, 16, 16]
    assert [len(y) for _, y, _ in Batches(data, 64, CPU, drop_last=True)] == [50]
    assert torch.equal(
        torch.cat([index for _, _, index in Batches(data, 16, CPU)]), torch.arange(50)
    )
    with pytest.raises(ValueError, match="holds no images"):
        Batches(data.select(torch.arange(0)), 16, CPU)


VICTIMS = [  # parameters at 10 classes, and the largest logit under weights made by rule
    ("resnet18", 11_173_962, 42.2872),
    ("resnet10_w16", 308_826, 11.8101),
    ("resnet8_w16_s2", 78_378, 6.96066),
    ("resnet10_w24_s4", 95_130, 12.5432),
    ("airbench", 1_971_352, 7.20495),
    ("airbench_w32", 497_240, 5.24727),
]


@pytest.mark.parametrize(
    ("name", "parameters"), [(name, parameters) for name, parameters, _ in VICTIMS]
)
def test_victims_have_their_parameter_counts(name: str, parameters: int, toy10: ImageSet) -> None:
    model = build_victim(name, toy10.info, 0)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert model.eval()(to_float(toy10.x[:2])).shape == (2, 10)


@pytest.mark.parametrize(("name", "logit"), [(name, logit) for name, _, logit in VICTIMS])
def test_a_victims_name_stands_for_one_network(name: str, logit: float, toy10: ImageSet) -> None:
    """Keys of records hold a victim's name alone: another network needs another name."""
    model = build_victim(name, toy10.info, 0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(
                torch.arange(weight.numel()).sin().view_as(weight) * (2 / weight[0].numel()) ** 0.5
            )
        assert model(to_float(toy10.x[:1])).max().item() == pytest.approx(logit, rel=1e-3)


@pytest.mark.parametrize("channels", [4, 6, 8])
def test_a_strided_pointwise_convolution_is_torchs_own(channels: int) -> None:
    """The reference has plain memory, since torch's own crashes on AVX2 in channels-last memory."""
    layer = Pointwise(channels, 2 * channels, 2)
    x = torch.rand(
        3, channels, 9, 8, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    out = layer.to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)
    )
    wanted = nn.functional.conv2d(x, layer.weight.contiguous(), stride=2)
    assert torch.allclose(out, wanted, atol=1e-6)
    grads = (
        torch.autograd.grad(value.square().sum(), [x, layer.weight]) for value in (out, wanted)
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


def test_initial_weights_depend_on_the_seed_alone(toy: ImageSet) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_victim("resnet10_w16", toy.info, 7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    same, other = (
        build_victim("resnet10_w16", toy.info, 7),
        build_victim("resnet10_w16", toy.info, 8),
    )
    assert weights_equal(first, same)
    assert not weights_equal(first, other)


def weights_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(p, q)
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


class Watching(Defense):
    """Remembers the weights and labels of the first step, and may change the images."""

    def __init__(self, shift: float) -> None:
        self.shift = shift
        self.seen: list[Any] = []

    def augment(self, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        torch.rand(3, generator=ctx.generator("noise"))
        return (x + self.shift).clamp(0, 1), y

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        if not self.seen:
            self.seen = [
                {name: value.clone() for name, value in model.state_dict().items()},
                y.clone(),
            ]
        return super().loss(model, x, y, ctx)


def test_initial_weights_and_order_do_not_depend_on_the_defense(toy: ImageSet) -> None:
    first, second = Watching(0.0), Watching(0.3)
    for defense in (first, second):
        fit("resnet10_w16", replace(SHORT, epochs=1), toy, Context(seed_axes=("pair", 0)), defense)
    assert all(torch.equal(first.seen[0][name], value) for name, value in second.seen[0].items())
    assert torch.equal(first.seen[1], second.seen[1])


def test_smoothed_labels_by_hand() -> None:
    hard = torch.tensor([2, 0])
    assert smoothed(hard, 4, 0.2).tolist() == [
        pytest.approx([0.05, 0.05, 0.85, 0.05]),
        pytest.approx([0.85, 0.05, 0.05, 0.05]),
    ]
    soft = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert smoothed(soft, 4, 0.2).tolist() == [pytest.approx([0.45, 0.45, 0.05, 0.05])]
    logits = torch.randn(2, 4, generator=generator())
    wanted = nn.functional.cross_entropy(logits, hard, label_smoothing=0.2)
    assert torch.allclose(nn.functional.cross_entropy(logits, smoothed(hard, 4, 0.2)), wanted)


def test_a_protocol_smooths_the_labels_that_the_loss_sees(toy: ImageSet) -> None:
    plain, smooth = Watching(0.0), Watching(0.0)
    fit("resnet10_w16", replace(SHORT, epochs=1), toy, Context(), plain)
    fit("resnet10_w16", replace(SHORT, epochs=1, label_smoothing=0.3), toy, Context(), smooth)
    assert torch.equal(smooth.seen[1], smoothed(plain.seen[1], 3, 0.3))


def test_fit_is_deterministic(toy: ImageSet) -> None:
    short = replace(SHORT, epochs=1)
    first, again, other = (
        fit("resnet10_w16", short, toy, Context(seed_axes=("fit", seed)), test=toy)
        for seed in (0, 0, 1)
    )
    assert weights_equal(first.model, again.model)
    assert (first.test_acc, first.train_loss) == (again.test_acc, again.train_loss)
    assert not weights_equal(first.model, other.model)


def test_fit_learns_the_toy_set_and_reports_each_epoch(toy: ImageSet) -> None:
    test = toy_set(classes=3, per_class=20, size=16, seed=1)
    epochs: list[int] = []
    notes: list[tuple[float, str]] = []
    ctx = Context(on_progress=lambda done, note: notes.append((done, note)))
    result = fit(
        "resnet10_w16",
        replace(SHORT, epochs=8),
        toy,
        ctx,
        test=test,
        after_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert result.test_acc[-1] >= 0.9
    assert result.train_acc[-1] >= 0.9
    assert len(result.test_acc) == len(result.train_loss) == 8
    assert result.train_loss[-1] < result.train_loss[0]
    assert epochs == list(range(8))
    assert notes[-1] == (1.0, "epoch 8/8")


class Diverging(Defense):
    """NaN losses from the third step on."""

    def __init__(self) -> None:
        self.steps = 0

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        self.steps += 1
        return super().loss(model, x, y, ctx) * (float("nan") if self.steps > 3 else 1.0)


def test_a_loss_that_is_not_finite_names_the_epoch(toy: ImageSet) -> None:
    with pytest.raises(
        FloatingPointError,
        match=r"training loss is nan in epoch 2 of 4 \(step 6\); the defense's loss diverged",
    ):
        fit("resnet10_w16", SHORT, toy, Context(), Diverging())
    with pytest.raises(ValueError, match='unknown victim "resnet19"; did you mean'):
        fit("resnet19", SHORT, toy, Context())


class Brightness(nn.Module):
    """Two classes: 1 if the image is brighter than one half. Forgets itself in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-score, score], 1) * (-1 if self.training else 1)


def test_evaluate_by_hand() -> None:
    data = random_set(8, 2)
    levels = torch.tensor([0, 50, 100, 120, 140, 200, 250, 255], dtype=torch.uint8)
    x = levels.view(8, 1, 1, 1).expand(8, 3, 8, 8).contiguous()
    data = ImageSet(
        x, torch.tensor([0, 0, 0, 1, 1, 1, 0, 1]), data.info
    )  # images 3 and 6 are labelled against the rule
    model = Brightness()
    model.train()
    assert evaluate(model, data, Context()) == 6 / 8
    assert model.training
    assert evaluate(model, data, Context(), lambda x: 1 - x) == 2 / 8
