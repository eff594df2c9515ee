"""What is particular to SEP.

Features meet the class means of their own checkpoint, and steps are those of the text.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import _descent
from attacks.sep import SEP
from benchmark import Context, ImageSet
from benchmark.data import to_float
from benchmark.running.verify import verify_poison
from benchmark.training.surrogate import features, surrogates, train_surrogate
from support.counting_net import build_counting_net
from support.sets import random_set

pytestmark = pytest.mark.usefixtures("small_nets")

SMALL = SEP(
    surrogate="resnet8_w16_s2",
    surrogate_protocol="quick",
    surrogate_epochs=90,
    checkpoints=3,
    steps=4,
    inner_steps=5,
)


@pytest.fixture(scope="module")
def states(small_nets: None, faint: ImageSet) -> tuple[dict[str, Tensor], ...]:
    return tuple(train_surrogate(SMALL, faint, Context()))


@pytest.fixture
def with_states(states: tuple[dict[str, Tensor], ...]) -> Context:
    return Context(surrogates=states)


def naive(attack: SEP, data: ImageSet, ctx: Context) -> Tensor:
    """The method's text, with every gradient taken alone: uint8."""
    models = surrogates(attack, data, ctx)
    x, goal = to_float(data.x), (data.y + 1) % 3  # half of three classes
    means = []
    for model in models:
        seen = copy.deepcopy(model).train() if attack.preset == "official" and not means else model
        found = features(seen, x)[0].detach()  # one chunk
        means.append(torch.stack([found[data.y == label].mean(0) for label in range(3)]))

    def slope(images: Tensor, model: nn.Module, means: Tensor) -> Tensor:
        images = images.clone().requires_grad_(True)
        found, logits = features(model, images)
        by_features = (found - means[goal]).square().mean(1).sum()
        loss = (
            F.cross_entropy(logits.double(), goal, reduction="sum")
            if attack.variant == "sep"
            else by_features
        )
        return torch.autograd.grad(loss, images)[0]

    def moved(images: Tensor, direction: Tensor) -> Tensor:
        delta = (images - direction.sign() / 255 - x).clamp(-8 / 255, 8 / 255)
        return (x + delta).clamp(0, 1)

    current = x
    for step in range(attack.steps):
        own = [slope(current, models[k], means[k]) for k in range(3)]
        mean = (own[0] + own[1] + own[2]) / 3
        if attack.variant != "fa_vr":
            current = moved(current, mean)
            continue
        inner, total = current, torch.zeros_like(x)
        for k in torch.randint(
            3,
            (attack.inner_steps,),
            generator=ctx.generator(f"checkpoints restart 0 chunk 0 {step}"),
        ).tolist():
            paired = means[k] if attack.preset == "clean" else means[2]
            total = total + slope(inner, models[k], paired) - (own[k] - mean)
            inner = moved(inner, total)
        current = moved(current, total)
    return (255 * current).round().to(torch.uint8)


@pytest.mark.parametrize(
    "attack",
    [
        replace(SMALL, variant="sep"),
        replace(SMALL, variant="fa"),
        replace(SMALL, variant="fa", preset="official"),
        SMALL,
        replace(SMALL, preset="official"),
    ],
    ids=["sep", "fa", "fa official", "fa_vr", "fa_vr official"],
)
def test_images_are_those_of_the_methods_text(
    attack: SEP, faint: ImageSet, with_states: Context
) -> None:
    # the last bit of a sum may differ, and with it the sign of a gradient that is nearly zero
    assert (
        float(
            (attack.poison(faint, with_states).x != naive(attack, faint, with_states))
            .float()
            .mean()
        )
        < 0.005
    )


def test_variants_and_presets_differ(faint: ImageSet, with_states: Context) -> None:
    fa = replace(SMALL, variant="fa")
    attacks = [
        SMALL,
        replace(SMALL, preset="official"),
        replace(SMALL, variant="sep"),
        fa,
        replace(fa, preset="official"),
    ]
    images = [attack.poison(faint, with_states).x for attack in attacks]
    for i in range(5):
        for j in range(i):
            assert float((images[i] != images[j]).float().mean()) > 0.02


@pytest.mark.parametrize("preset", ["clean", "official"])
def test_networks_meet_their_own_class_means(
    preset: str, faint: ImageSet, with_states: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the official form the inner loop has the last checkpoint's means, whichever was drawn."""
    attack = replace(SMALL, preset=preset, steps=2)
    models = surrogates(attack, faint, with_states)
    first = copy.deepcopy(models[0]).train(preset == "official")
    means = [attack.means(model, faint, with_states) for model in (first, *models[1:])]
    weights = [next(model.parameters()) for model in models]
    seen: list[tuple[int, int]] = []
    loss = SEP.loss

    def watched(self: SEP, model: nn.Module, against: Tensor, *args: Any) -> Tensor:
        seen.append(
            (
                next(k for k in range(3) if torch.equal(weights[k], next(model.parameters()))),
                next(k for k in range(3) if torch.equal(means[k], against)),
            )
        )
        return loss(self, model, against, *args)

    monkeypatch.setattr(SEP, "loss", watched)
    attack.poison(faint, with_states)
    outer = [(0, 0), (1, 1), (2, 2)]
    assert len(seen) == 2 * (3 + 5) + 3
    for calls in (seen[:3], seen[8:11], seen[16:]):
        assert calls == outer
    inner = seen[3:8] + seen[11:16]
    assert {model for model, _ in inner} == {0, 1, 2}
    assert all(against == (model if preset == "clean" else 2) for model, against in inner)


def test_class_means_are_exact_for_unequal_classes_and_last_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 7 * 64)
    data = random_set(40, 4)
    data = ImageSet(
        data.x, torch.where(data.y < 3, 0, 2), data.info
    )  # classes 1 and 3 are nobody's target
    for seed in (0, 1):
        net = build_counting_net("", data.info, seed).eval()
        means = SMALL.means(net, data, Context())
        found = features(net, to_float(data.x))[0]
        assert means.shape == (4, 128)
        for label in (0, 2):
            assert torch.allclose(means[label], found[data.y == label].mean(0), atol=1e-6)
        assert not means[1::2].any()


def test_a_target_without_images_is_refused(with_states: Context, faint: ImageSet) -> None:
    two = ImageSet(faint.x[:40], faint.y[:40] % 2, faint.info)
    with pytest.raises(
        ValueError,
        match="class 2 is a target but has no images, hence no mean features; "
        "change shift, or use variant=sep",
    ):
        SMALL.poison(two, with_states)
    attack = replace(SMALL, variant="sep")
    assert verify_poison(two, attack.poison(two, with_states), attack)["changed"] == 1.0


@pytest.mark.parametrize("variant", ["sep", "fa", "fa_vr"])
def test_more_steps_bring_more_checkpoints_to_the_target(
    variant: str, faint: ImageSet, with_states: Context
) -> None:
    shares = []
    for steps in (1, 4, 12):
        attack = replace(SMALL, variant=variant, steps=steps)
        poisoned = attack.poison(faint, with_states)
        hits = [
            model(to_float(poisoned.x)).argmax(1) == (faint.y + 1) % 3
            for model in surrogates(attack, faint, with_states)
        ]
        shares.append(float(torch.stack(hits).double().mean()))
        assert with_states.notes["crafting_success"] == pytest.approx(shares[-1])
    assert shares == sorted(shares)
    assert shares[0] < 0.9
    assert shares[-1] > 0.95
    facts = verify_poison(faint, poisoned, attack)
    assert facts["linf"] is not None
    assert facts["linf"] <= 8 / 255 + 1e-9


@pytest.mark.parametrize(
    ("classes", "shift", "expected"), [(10, 0, 5), (100, 0, 50), (3, 0, 1), (10, 1, 1)]
)
def test_the_target_is_half_the_classes_away(classes: int, shift: int, expected: int) -> None:
    data = random_set(2 * classes, classes)
    assert torch.equal(
        replace(SMALL, shift=shift)._targets(data.y, data), (data.y + expected) % classes
    )


def test_a_killed_run_gives_the_same_bytes(
    faint: ImageSet, with_states: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 16 * 16 * 25)
    expected = SMALL.poison(faint, with_states)

    def stop(share: float, note: str) -> None:
        if note == "restart 0 chunk 1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SMALL.poison(faint, replace(with_states, scratch=tmp_path, on_progress=stop))
    notes: list[str] = []
    again = replace(
        with_states, scratch=tmp_path, on_progress=lambda share, note: notes.append(note)
    )
    assert SMALL.poison(faint, again).fingerprint == expected.fingerprint
    assert set(notes) == {"restart 0 chunk 1", "restart 0 chunk 2"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"step": 0.0}, r"in \[0, 1\] units"),
        ({"variant": "fa-vr"}, 'variant="fa-vr", expected sep, fa or fa_vr'),
        ({"preset": "paper"}, 'preset="paper", expected clean or official'),
        (
            {"preset": "official", "variant": "sep"},
            "concerns class means, which variant=sep has no use for",
        ),
        ({"inner_steps": 0}, "inner_steps=0, expected at least 1"),
        ({"checkpoints": 0}, "checkpoints=0, expected at least 1"),
        ({"surrogate_epochs": -1}, "surrogate_epochs=-1, expected at least 0"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEP(**parameters)
