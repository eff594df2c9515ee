"""What is particular to REM.

Steps are those of a naive loop, adversarial examples stay within their radius, and every image
gets final noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_eot import one_view
from torch import Tensor
from torch.nn import functional as F

from attacks import _robust_min
from attacks._eot import draw_views
from attacks._robust_min import RobustMin
from attacks.rem import REM
from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.data import to_float
from benchmark.running.verify import verify_poison
from benchmark.training import checkpoint as resume
from benchmark.training import surrogate
from benchmark.training.gradients import frozen
from support.counting_net import CountingNet, build_counting_net
from support.sets import random_set

SMALL = REM(
    steps=5,
    batch_size=25,
    eot_samples=2,
    noise_steps=2,
    noise_step=4 / 255,
    attack_steps=2,
    attack_step=3 / 255,
    lr_every=2,
)


@pytest.fixture(autouse=True)
def nets(monkeypatch: pytest.MonkeyPatch) -> list[CountingNet]:
    """The surrogates that attacks build, all of them small and with no duty to learn."""
    monkeypatch.setattr(surrogate, "LEARNED", -math.inf)
    built: list[CountingNet] = []

    def build(*args: Any) -> CountingNet:
        built.append(build_counting_net(*args))
        return built[-1]

    monkeypatch.setattr(_robust_min, "build_victim", build)
    return built


@pytest.fixture
def net(toy: ImageSet) -> CountingNet:
    return build_counting_net("", toy.info, 0).eval()


def batch(data: ImageSet) -> tuple[Tensor, Tensor]:
    return to_float(data.x[:12]).to(memory_format=torch.channels_last), data.y[:12]


def loss_of(net: CountingNet, x: Tensor, y: Tensor) -> float:
    with frozen(net), torch.no_grad():
        return float(F.cross_entropy(net(x), y))


def naive_noise(
    attack: RobustMin, net: CountingNet, data: ImageSet, offsets: list[Tensor], purpose: str
) -> Tensor:
    """``descend`` with one view after another, int8 (B, C, H, W).

    ``offsets`` hold the attack on each view.
    """
    x, y = batch(data)
    drawn = Context().generator(f"{purpose} noise")
    delta = torch.empty(x.shape).uniform_(-attack.eps, attack.eps, generator=drawn)
    for step in range(attack.noise_steps):
        drawn_views = draw_views(attack.eot_samples * len(x), data.info.hflip, drawn).tolist()
        total = torch.zeros_like(delta)
        for k, how in enumerate(drawn_views):
            i = k % len(x)
            change = delta[i].clone().requires_grad_(True)
            seen = one_view((x[i] + change).clamp(0, 1), *how)
            target = (seen.detach() + offsets[step][k]).clamp(0, 1).requires_grad_(True)
            (gradient,) = torch.autograd.grad(
                F.cross_entropy(net(target[None]), y[i : i + 1]), target
            )
            total[i] += torch.autograd.grad((seen * gradient).sum(), change)[0]
        delta = (delta - attack.noise_step * total.sign()).clamp(-attack.eps, attack.eps)
    return (255 * delta).round().to(torch.int8)


def test_noise_equals_that_of_a_loop_over_views(
    toy: ImageSet, net: CountingNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack's result counts as a constant.

    Only the noisy image's own clipping lies on the way back.
    """
    generator = torch.Generator().manual_seed(1)
    offsets = [
        torch.empty(2 * 12, *toy.x.shape[1:]).uniform_(-0.1, 0.1, generator=generator)
        for _ in range(2)
    ]
    left = iter(offsets)
    monkeypatch.setattr(
        REM, "attacked", lambda self, model, x, y, generator, ctx: (x + next(left)).clamp(0, 1)
    )
    fast = SMALL.descend(net, *batch(toy), toy.info, "p", Context())
    slow = naive_noise(SMALL, net, toy, offsets, "p")
    # the sums of a convolution may differ in the last bit, and with it the sign of a gradient
    # that is nearly zero
    assert float((fast != slow).float().mean()) < 0.002


def test_noise_is_int8_within_the_budget_and_has_both_signs(
    toy: ImageSet, net: CountingNet
) -> None:
    noise = SMALL.descend(net, *batch(toy), toy.info, "p", Context())
    assert noise.dtype == torch.int8
    assert int(noise.int().abs().max()) == 8
    assert 0.4 < float((noise[noise != 0] < 0).float().mean()) < 0.6


def test_adversarial_examples_stay_within_radius_and_range_and_raise_the_loss(
    toy: ImageSet, net: CountingNet
) -> None:
    x, y = batch(toy)
    attack = replace(SMALL, attack_steps=10, attack_step=0.8 / 255)
    with frozen(net):
        found = attack.ascend(net, x, y, torch.Generator().manual_seed(0), Context())
    change = (found - x).abs()
    assert float(change.max()) == pytest.approx(4 / 255, abs=1e-6)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert loss_of(net, found, y) > loss_of(
        net, attack.jitter(x, torch.Generator().manual_seed(0)), y
    )


def test_without_a_radius_nothing_is_searched_for(toy: ImageSet, net: CountingNet) -> None:
    x, y = batch(toy)
    assert torch.equal(
        replace(SMALL, radius=0.0).ascend(net, x, y, torch.Generator(), Context()), x
    )
    assert net.images == 0


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """purpose -> noise, of all that is made from now on."""
    made: dict[str, Tensor] = {}
    descend = RobustMin.descend

    def wrapped(self: RobustMin, *args: Any) -> Tensor:
        made[args[4]] = descend(self, *args)
        return made[args[4]]

    monkeypatch.setattr(RobustMin, "descend", wrapped)
    return made


def with_noise(data: ImageSet, noise: Tensor) -> Tensor:
    return (data.x.int() + noise.int()).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("preset", ["clean", "official"])
def test_only_the_official_preset_leaves_noise_of_training_time(
    preset: str, toy: ImageSet, nets: list[CountingNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ctx, attack = recorded(monkeypatch), Context(), replace(SMALL, preset=preset)
    poisoned = attack.poison(toy, ctx)
    from_training = torch.zeros(toy.x.shape, dtype=torch.int8)
    for step in range(attack.steps):
        from_training[attack._batch_of_step(60, step, ctx)] = made[f"step {step}"]
    anew = from_training.clone()
    parts = attack.final_parts(60, ctx)
    for number, part in enumerate(parts):
        x, y = to_float(toy.x[part]).to(memory_format=torch.channels_last), toy.y[part]
        anew[part] = attack.descend(nets[0], x, y, toy.info, f"final {number}", ctx)
    assert torch.equal(poisoned.x, with_noise(toy, anew))
    covered = torch.cat(parts)
    assert (anew[covered] != from_training[covered]).flatten(1).any(1).all()
    stale = 60 - len(covered)
    assert ctx.notes["stale"] == stale == (0 if preset == "clean" else 10)
    assert (
        covered.tolist() == list(range(60))
        if preset == "clean"
        else len(set(covered.tolist())) == 50
    )


def test_budget_holds_and_every_image_changes(toy: ImageSet) -> None:
    facts = verify_poison(toy, SMALL.poison(toy, Context()), SMALL)
    assert facts["changed"] == 1.0
    assert facts["linf"] == pytest.approx(8 / 255)


def test_a_budget_between_two_levels_is_kept(toy: ImageSet) -> None:
    attack = replace(SMALL, steps=1, eps=7.6 / 255)
    assert verify_poison(toy, attack.poison(toy, Context()), attack)["linf"] == pytest.approx(
        8 / 255
    )


@pytest.mark.parametrize(("n", "classes", "channels"), [(5, 100, 1), (23, 3, 3)])
def test_small_unequal_gray_and_rectangular_sets(n: int, classes: int, channels: int) -> None:
    data = random_set(n, classes, channels, 8, 12)
    attack = replace(SMALL, steps=3, batch_size=8)
    assert verify_poison(data, attack.poison(data, Context()), attack)["changed"] == 1.0


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        SMALL.poison(random_set(1, 2), Context())


def test_a_pass_over_the_set_shows_every_image_once_in_a_new_order() -> None:
    passes = [
        torch.cat([SMALL._batch_of_step(75, 3 * epoch + i, Context()) for i in range(3)])
        for epoch in range(2)
    ]
    assert [sorted(order.tolist()) for order in passes] == [list(range(75))] * 2
    assert not torch.equal(*passes)


def test_lr_falls_to_a_tenth(toy: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.SGD.step

    def wrapped(self: torch.optim.SGD) -> None:
        seen.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", wrapped)
    SMALL.poison(toy, Context())
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_the_robust_loss_falls_and_the_noise_is_what_was_learned(
    registry: Registry, nets: list[CountingNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On images without anything else to learn."""
    registry.load("attack", "rem")  # gives the class its name
    monkeypatch.setattr(_robust_min, "LOG_EVERY", 10)
    data = random_set(60, 3, 3, 16, 16)
    data = data.with_x(data.x // 4 + 96)
    lines: list[str] = []
    attack = replace(
        SMALL,
        steps=35,
        lr=0.05,
        lr_every=40,
        radius=1 / 255,
        noise_steps=3,
        eps=16 / 255,
        noise_step=8 / 255,
    )
    ctx = Context(on_log=lines.append)
    poisoned = attack.poison(data, ctx)
    assert [line.partition(",")[0] for line in lines] == [
        f"rem: step {step} of 35" for step in (10, 20, 30, 35)
    ]
    assert ctx.notes["robust_loss"] == pytest.approx(float(lines[-1].split()[-1]), abs=1e-4)
    assert ctx.notes["robust_loss"] < 0.7 * float(lines[0].split()[-1])
    with frozen(nets[0]):
        attacked = [
            attack.ascend(nets[0], to_float(x), data.y, torch.Generator().manual_seed(0), ctx)
            for x in (poisoned.x, data.x)
        ]
    noisy, clean = (loss_of(nets[0], x, data.y) for x in attacked)
    assert noisy < 0.5 * clean


def test_passes_of_a_step_and_of_the_final_noise_are_those_of_the_plan(
    toy: ImageSet, nets: list[CountingNet]
) -> None:
    check_passes(SMALL, REM(), toy, nets, lambda attack: 1 + attack.attack_steps)


def check_passes(
    small: RobustMin,
    full: RobustMin,
    data: ImageSet,
    nets: list[CountingNet],
    of_a_view: Callable[[RobustMin], int],
) -> None:
    """Images counted at small settings agree with a formula.

    At the defaults the formula gives the plan's ``effort``.
    """

    def final(attack: RobustMin) -> int:
        return attack.noise_steps * attack.eot_samples * of_a_view(attack)

    def a_step(attack: RobustMin) -> int:
        return final(attack) + attack.attack_steps + 1

    small.poison(data, Context())
    assert nets[0].images == small.steps * small.batch_size * a_step(small) + len(data) * final(
        small
    )
    assert full.effort == {
        "steps": pytest.approx(a_step(full) * full.batch_size / 50_000),
        "": final(full),
    }


@pytest.mark.parametrize("rounds", [2, 5, 6])
def test_a_killed_run_goes_on_to_the_same_bytes(
    rounds: int,
    toy: ImageSet,
    nets: list[CountingNet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    whole = Context()
    expected = SMALL.poison(toy, whole)

    def stop(share: float, note: str) -> None:
        if note.startswith(f"round {rounds} "):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        SMALL.poison(toy, Context(scratch=tmp_path, on_progress=stop))
    seen: list[str] = []
    again = Context(scratch=tmp_path, on_progress=lambda share, note: seen.append(note))
    assert SMALL.poison(toy, again).fingerprint == expected.fingerprint
    assert again.notes == whole.notes
    assert len(seen) == 8 - min(
        rounds, 5
    )  # 5 steps and 3 parts, of which those that are there pass by
    assert nets[2].images < nets[0].images


def test_a_surrogate_that_diverges_is_an_error(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FloatingPointError, match=r"is nan before step 5 of 5; lower lr"):
        replace(SMALL, lr=1e30).poison(toy, Context())

    step = torch.optim.SGD.step

    def broken(self: torch.optim.SGD) -> None:
        step(self)
        self.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", broken)
    with pytest.raises(FloatingPointError, match=r"not finite after the last step \(1\)"):
        replace(SMALL, steps=1).poison(toy, Context())


def test_a_surrogate_that_does_not_learn_is_refused(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate, "LEARNED", 0.1)
    message = (
        r"the surrogate resnet18 did not learn: its robust loss is 1\.\d\d at the end of 5 steps, "
        "where chance has 1.10; raise steps"
    )
    with pytest.raises(ValueError, match=message):
        replace(SMALL, lr=1e-9).poison(toy, Context())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"eps": 0.0}, r"eps=0, expected 0\.5/255 <= eps <= 127/255 .*in \[0, 1\] units"),
        ({"eps": 0.6}, r"eps=0\.6, expected 0\.5/255 <= eps <= 127/255"),
        ({"radius": 4.0}, "write 4/255, not 4"),
        ({"radius": -0.1}, r"radius=-0\.1, expected 0 <= radius < 1"),
        ({"noise_step": 0.0}, "noise_step=0, expected 0 < noise_step < 1"),
        ({"attack_step": 1.0}, "write 1/255, not 1"),
        ({"attack_steps": 0}, "=0, expected at least 1"),
        ({"eot_samples": 0}, "=0, expected at least 1"),
        ({"steps": 0}, "=0, expected at least 1"),
        ({"batch_size": 1}, "batch_size=1, expected at least 2"),
        ({"lr": 0.0}, "lr=0, expected more than 0"),
        ({"preset": "released"}, "expected clean or official"),
    ],
)
def test_bad_parameters(parameters: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REM(**parameters)  # type: ignore[arg-type]
