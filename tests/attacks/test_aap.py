"""What is particular to AAP.

Without strength it is plain targeted poisoning; it draws fresh views at every step; its surrogate
is trained on views.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import _descent, _surrogate, aap, tap
from attacks._augment import augment
from attacks.aap import AAP
from attacks.tap import TAP
from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.data import to_float
from benchmark.running.verify import verify_poison
from benchmark.training.ball import Ball
from benchmark.training.surrogate import train_surrogate
from support.counting_net import build_counting_net

SMALL = AAP(steps=5, step_share=0.2)


@pytest.fixture(scope="module")
def trained(toy: ImageSet) -> nn.Module:
    """A small network that knows the toy set."""
    model = build_counting_net("", toy.info, 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    x = to_float(toy.x)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(x), toy.y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert bool((model.eval()(x).argmax(1) == toy.y).all())
    return model.requires_grad_(False)


@pytest.fixture(autouse=True)
def surrogates(trained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks find the network trained."""
    monkeypatch.setattr(_surrogate, "surrogates", lambda *args: [trained])


def mirrors(data: ImageSet) -> ImageSet:
    return ImageSet(data.x, data.y, replace(data.info, hflip=True))


@pytest.mark.parametrize("targeted", [True, False])
def test_without_strength_it_is_tap_without_augmentation(
    targeted: bool, toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "SHIFT", 0.0)  # and the toy set has no mirror images
    monkeypatch.setattr(Ball, "normal_start", lambda ball, x, length, generator: x)
    plain = TAP(targeted=targeted, steps=5, step_share=0.2, restarts=1)
    mine, theirs = Context(), Context()
    expected = plain.poison(toy, theirs).fingerprint
    assert replace(SMALL, targeted=targeted, strength=0.0).poison(toy, mine).fingerprint == expected
    assert mine.notes == theirs.notes
    assert replace(SMALL, targeted=targeted).poison(toy, Context()).fingerprint != expected


def naive(attack: AAP, model: nn.Module, data: ImageSet, size: int) -> Tensor:
    """The published loop, chunk by chunk: float (N, C, H, W)."""
    done = []
    for number, part in enumerate(torch.arange(len(data)).split(size)):  # type: ignore[no-untyped-call]
        x = to_float(data.x[part]).to(memory_format=torch.channels_last)
        label = (data.y[part] + attack.shift) % 3 if attack.targeted else data.y[part]
        moved = x
        for step in range(attack.steps):
            generator = Context().generator(f"views restart 0 chunk {number} {step}")
            seen = moved.clone().requires_grad_(True)
            loss = F.cross_entropy(
                model(augment(seen, attack.strength, generator, data.info.hflip)).double(),
                label,
                reduction="sum",
            )
            (gradient,) = torch.autograd.grad(loss, seen)
            moved = (
                moved
                + (-1 if attack.targeted else 1) * attack.step_share * attack.eps * gradient.sign()
            )
            moved = (x + (moved - x).clamp(-attack.eps, attack.eps)).clamp(0, 1)
        done.append(moved)
    return torch.cat(done)


@pytest.mark.parametrize("targeted", [True, False])
def test_steps_are_those_of_a_plain_loop(
    targeted: bool, toy: ImageSet, trained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 25 * 256)
    attack = replace(SMALL, targeted=targeted, strength=0.8)
    for data in (toy, mirrors(toy)):
        poisoned = attack.poison(data, Context())
        assert torch.equal(
            poisoned.x,
            data.with_x((255 * naive(attack, trained, data, 25)).round().to(torch.uint8)).x,
        )


def test_the_network_sees_the_target_and_the_budget_holds(
    toy: ImageSet, trained: nn.Module
) -> None:
    attack = AAP(steps=20, step_share=0.1, eps=48 / 255)
    ctx = Context()
    poisoned = attack.poison(toy, ctx)
    assert verify_poison(toy, poisoned, attack)["linf"] == pytest.approx(48 / 255, abs=1e-6)
    assert torch.equal(trained(to_float(poisoned.x)).argmax(1), (toy.y + 1) % 3)
    assert ctx.notes["crafting_success"] == 1.0


def test_untargeted_noise_leads_away_from_the_label(toy: ImageSet, trained: nn.Module) -> None:
    ctx = Context()
    poisoned = AAP(steps=20, step_share=0.1, eps=48 / 255, targeted=False).poison(toy, ctx)
    assert not (trained(to_float(poisoned.x)).argmax(1) == toy.y).any()
    assert ctx.notes["crafting_success"] == 1.0
    assert ctx.notes["crafting_loss"] < -5


def test_the_surrogate_is_trained_on_views(toy: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, float, bool]] = []
    states: set[bytes] = set()

    def watched(x: Tensor, strength: float, generator: torch.Generator, flip: bool) -> Tensor:
        calls.append((len(x), strength, flip))
        states.add(generator.get_state().numpy().tobytes())
        return augment(x, strength, generator, flip)

    monkeypatch.setattr(aap, "augment", watched)
    monkeypatch.setattr("benchmark.training.train.build_victim", build_counting_net)
    attack = AAP(surrogate_protocol="quick", surrogate_epochs=10, strength=0.3)
    train_surrogate(attack, toy, Context())
    assert (
        calls == [(60, 0.3, False)] * 10
    )  # mirroring is the protocol's; the 60 images are one batch
    assert len(states) == 10


def test_the_strength_decides_which_surrogate_it_is(registry: Registry) -> None:
    card = registry.card("attack", "aap")
    assert "strength" in card.trained_surrogate
    assert "augment_surrogate" in card.overrides


def test_a_killed_run_goes_on_to_the_same_bytes(
    toy: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 25 * 256)
    undisturbed = Context()
    expected = SMALL.poison(toy, undisturbed)

    def stop(share: float, note: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SMALL.poison(toy, Context(scratch=tmp_path, on_progress=stop))
    ctx = Context(scratch=tmp_path)
    assert SMALL.poison(toy, ctx).fingerprint == expected.fingerprint
    assert ctx.notes == undisturbed.notes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        (
            {"strength": -0.1},
            r"strength=-0\.1, expected 0 <= strength <= 1 \(of the augmentation.* 0 \(none\)",
        ),
        ({"step_share": 2.0}, "expected 0 < step_share <= 1 .*share of eps"),
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"surrogate_epochs": -1}, "surrogate_epochs=-1, expected at least 0"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AAP(**parameters)


def test_a_shift_onto_the_own_class_is_refused(toy: ImageSet) -> None:
    with pytest.raises(ValueError, match="shift=3 at 3 classes"):
        replace(SMALL, shift=3).poison(toy, Context())
