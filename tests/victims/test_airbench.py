"""The airbench networks: whitening against loops, first weights, shifts, and who prepares them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import _robust_min
from attacks._min_min import MinMin
from attacks.rem import REM
from attacks.tap import TAP
from benchmark import Context, DatasetInfo, ImageSet
from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.data import to_float
from benchmark.training.surrogate import features, surrogates, train_surrogate
from benchmark.training.train import build_victim, fit
from benchmark.victims import _airbench
from benchmark.victims._airbench import GAIN, Airbench, Norm, convolution, whitening
from support.sets import random_set

FAST = replace(get_protocol("fast"), epochs=1, batch_size=20, precision="fp32")


def smooth_set(n: int, channels: int, side: int = 9) -> ImageSet:
    """Random images whose neighbours and channels are alike."""
    data = random_set(n, 2, channels, side, side)
    x = F.avg_pool2d(data.x.float(), 3, 1, 1) + data.x.float().mean(1, keepdim=True)
    return data.with_x((x / x.max() * 255).to(torch.uint8))


def patches_of(data: ImageSet) -> np.ndarray[Any, Any]:
    """Every 2x2 patch, one value after another, (patches, 4 C)."""
    found = []
    for image in to_float(data.x).double().numpy():
        for top in range(image.shape[1] - 1):
            for left in range(image.shape[2] - 1):
                found.append(image[:, top : top + 2, left : left + 2].reshape(-1))
    return np.stack(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_have_the_identity_as_covariance_but_for_eps(channels: int) -> None:
    data = smooth_set(20, channels)
    mean, filters = whitening(data)
    patches = patches_of(data)
    variances = np.linalg.eigvalsh(np.cov(patches.T, bias=True))[::-1]
    whitened = patches @ filters.flatten(1).numpy().T
    expected = np.diag(variances / (variances + 5e-4 * variances.mean()))
    assert np.allclose(np.cov(whitened.T, bias=True), expected, atol=1e-9)
    assert expected.diagonal().min() > 0.8
    assert np.allclose(mean, patches.reshape(len(patches), channels, 4).mean((0, 2)))


def test_the_layer_whitens_images_and_has_the_negatives_too() -> None:
    data = smooth_set(20, 3)
    model = build_victim("airbench_w32", data.info, 0, train=data)
    assert isinstance(model, Airbench)
    found = model.whitening(to_float(data.x)).double()
    mean, filters = whitening(data)
    assert torch.allclose(found[:, :12], -found[:, 12:], atol=1e-5)
    one = to_float(data.x)[4, :, 2:4, 3:5].double() - mean[:, None, None]
    assert torch.allclose(found[4, :12, 2, 3], (filters * one).sum((1, 2, 3)), atol=1e-5)
    assert abs(found.mean().item()) < 1e-5


def test_a_component_has_one_sign_and_their_variances_fall() -> None:
    """A solver may return a vector or its negative."""
    data = smooth_set(30, 3)
    _, filters = whitening(data)
    flat = filters.flatten(1)
    large = flat.abs() >= flat.abs().amax(1, keepdim=True) / 2
    assert all(row[mask][0] > 0 for row, mask in zip(flat, large, strict=True))
    assert bool((flat.norm(dim=1).diff() > 0).all())  # a filter is 1 / sqrt(variance) long


def test_the_whitening_sees_a_sorted_set_in_even_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    data = smooth_set(31, 3)
    monkeypatch.setattr(_airbench, "IMAGES", 4)
    monkeypatch.setattr(_airbench, "AT_ONCE", 3)
    found = whitening(data)
    monkeypatch.undo()
    wanted = whitening(data.select(torch.tensor([0, 10, 20, 30])))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))


def test_images_of_one_colour_have_a_whitening() -> None:
    data = random_set(4, 2, height=9, width=9)
    model = build_victim("airbench_w32", data.info, 0, train=data.with_x(data.x * 0 + 77))
    assert bool(torch.isfinite(model.eval()(to_float(data.x))).all())


def test_convolutions_begin_as_the_identity_on_their_first_channels() -> None:
    x = torch.rand(2, 5, 6, 6)
    layer = convolution(5, 7)
    assert torch.equal(layer(x)[:, :5], x)
    assert bool((layer.weight[5:] != 0).all())
    model = build_victim("airbench_w32", random_set(2, 2, height=9, width=9).info, 0)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    widths = [(layer.in_channels, layer.out_channels) for layer in layers]
    assert widths == [(24, 32), (32, 32), (32, 128), (128, 128), (128, 128), (128, 128)]
    for layer in layers:
        first = layer.weight[: layer.in_channels]
        assert torch.equal(first, nn.init.dirac_(torch.empty_like(first)))


def test_an_eighth_of_a_shift_learns_like_the_shift_with_64_times_the_rate() -> None:
    """The source's form: rate x 64, weight decay / 64, and weights of 1 that do not learn."""
    mine, plain = Norm(3), nn.BatchNorm2d(3)
    plain.weight.requires_grad_(False)
    lr, decay = 0.01, 0.1
    rule: dict[str, Any] = {"momentum": 0.85, "nesterov": True}
    steps = (
        (mine, torch.optim.SGD([mine.eighth], lr, weight_decay=decay, **rule)),
        (plain, torch.optim.SGD([plain.bias], 64 * lr, weight_decay=decay / 64, **rule)),
    )
    for number in range(4):
        x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(number))
        outs = []
        for norm, optimizer in steps:
            out = norm(x)
            optimizer.zero_grad()
            (out + 1).square().mean().backward()
            optimizer.step()
            outs.append(out)
        assert torch.allclose(*outs, atol=1e-6)
    assert torch.allclose(GAIN * mine.eighth, plain.bias, atol=1e-6)
    assert float(plain.bias.detach().abs().min()) > 0.1
    x = torch.rand(2, 3, 4, 4)
    assert torch.allclose(mine.eval()(x), plain.eval()(x), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("airbench", 10, 1_971_352),
        ("airbench", 100, 1_994_392),
        ("airbench_w32", 10, 497_240),
        ("airbench_w32", 100, 508_760),
    ],
)
def test_parameter_counts(name: str, classes: int, parameters: int) -> None:
    """Those of the source at 10 classes; the 288 fixed ones of the whitening are buffers."""
    model = build_victim(name, random_set(2, classes, height=32, width=32).info, 0)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert sum(b.numel() for n, b in model.named_buffers() if n == "whitening.weight") == 288


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 9, 30), (4, 40, 17)])
def test_images_of_other_shapes(channels: int, height: int, width: int) -> None:
    data = random_set(6, 7, channels, height, width)
    model = build_victim("airbench_w32", data.info, 0, train=data)
    assert model(to_float(data.x)).shape == (6, 7)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="images are 8 x 30; airbench needs sides of at least 9"):
        build_victim("airbench", random_set(2, 2, height=8, width=30).info, 0)


def test_the_whitening_is_exact_under_bf16() -> None:
    data = smooth_set(4, 3)
    model = build_victim("airbench_w32", data.info, 0, train=data)
    assert isinstance(model, Airbench)
    x = to_float(data.x)
    with Context(precision="bf16").autocast():
        found, logits = model.whitening(x), model(x)
    assert torch.equal(found, model.whitening(x))
    assert found.dtype == torch.float32
    assert torch.allclose(logits.float(), model(x), atol=0.1)


def whitens_like(model: nn.Module | dict[str, Tensor], data: ImageSet) -> bool:
    state = model if isinstance(model, dict) else model.state_dict()
    return torch.equal(state["whitening.weight"][:12], whitening(data)[1].float())


def test_fit_whitens_by_the_images_that_it_is_given(toy: ImageSet) -> None:
    """A user of protected images has no others."""
    protected = toy.map(lambda x: 255 - x // 2)
    fits = [fit("airbench_w32", FAST, data, Context()) for data in (toy, toy, protected)]
    assert whitens_like(fits[0].model, toy)
    assert whitens_like(fits[2].model, protected)
    assert not whitens_like(fits[2].model, toy)
    states = [list(run.model.state_dict().values()) for run in fits]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))


def test_fit_learns_the_toy_set(toy: ImageSet) -> None:
    protocol = replace(FAST, epochs=6, crop=1)
    assert fit("airbench_w32", protocol, toy, Context(), test=toy).test_acc[-1] >= 0.9


def test_weights_that_are_loaded_bring_the_whitening(toy: ImageSet) -> None:
    model = fit("airbench_w32", FAST, toy, Context()).model.eval()
    other = build_victim("airbench_w32", toy.info, 5).eval()
    x = to_float(toy.x[:4])
    assert not torch.allclose(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def short(name: str) -> Protocol:
    return replace(FAST, name=name)


def test_a_trained_surrogate_is_whitened(toy: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.training.surrogate.get_protocol", short)
    attack = TAP(surrogate="airbench_w32", surrogate_protocol="fast", surrogate_epochs=4)
    states = train_surrogate(attack, toy, Context())
    assert whitens_like(states[0], toy)
    (model,) = surrogates(attack, toy, Context(surrogates=states))
    assert whitens_like(model, toy)
    found, logits = features(model, to_float(toy.x[:2]))
    assert torch.allclose(found @ model.get_parameter("head.weight").T / 9, logits, atol=1e-6)
    assert found.shape == (2, 128)


def test_a_surrogate_that_an_attack_trains_is_whitened(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = MinMin(
        toy,
        Context(),
        surrogate="airbench_w32",
        by_class=True,
        eps=8 / 255,
        lr=0.1,
        weight_decay=0.0,
        chunk=8,
    )
    assert whitens_like(game.model, toy)
    built: list[nn.Module] = []

    def build(*args: Any) -> nn.Module:
        built.append(build_victim(*args))
        return built[0]

    monkeypatch.setattr(_robust_min, "build_victim", build)
    few = {"steps": 1, "noise_steps": 1, "attack_steps": 1, "eot_samples": 1, "batch_size": 8}
    monkeypatch.setattr(_robust_min, "check_learned", lambda *args: None)
    REM(surrogate="airbench_w32", **few).poison(toy.select(torch.arange(0, 60, 5)), Context())
    assert whitens_like(built[0], toy.select(torch.arange(0, 60, 5)))


def dataset_info(side: int) -> DatasetInfo:
    return random_set(2, 2, height=side, width=side).info


def test_ahead_of_the_images_filters_pick_single_values() -> None:
    model = build_victim("airbench_w32", dataset_info(9), 0)
    assert isinstance(model, Airbench)
    x = torch.rand(1, 3, 9, 9)
    found = model.whitening(x)
    assert torch.equal(found[:, 3], x[:, 0, 1:, 1:])
    assert torch.equal(found[:, 12 + 9], -x[:, 2, :-1, 1:])
