"""What is particular to TAP: predictions move to the target, through bilinear shifts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import _descent
from attacks.tap import TAP, shifts
from benchmark import Context, ImageSet
from benchmark.data import to_float
from benchmark.running.verify import verify_poison
from benchmark.training.surrogate import surrogates, train_surrogate

pytestmark = pytest.mark.usefixtures("small_nets")

SMALL = TAP(
    surrogate="resnet8_w16_s2",
    surrogate_protocol="quick",
    surrogate_epochs=150,
    steps=20,
    step_share=0.1,
    restarts=1,
)
BRIEF = replace(SMALL, steps=4)


@pytest.fixture(scope="module")
def states(small_nets: None, faint: ImageSet) -> tuple[dict[str, Tensor], ...]:
    return tuple(train_surrogate(SMALL, faint, Context()))


@pytest.fixture(scope="module")
def poisoned(faint: ImageSet, states: tuple[dict[str, Tensor], ...]) -> tuple[ImageSet, Context]:
    ctx = Context(surrogates=states)
    return SMALL.poison(faint, ctx), ctx


def predictions(data: ImageSet, ctx: Context) -> Tensor:
    (model,) = surrogates(SMALL, data, ctx)
    predicted: Tensor = model(to_float(data.x)).argmax(1)
    return predicted


def sampled(x: Tensor, draws: Tensor, flip: bool) -> Tensor:
    """Images shifted by up to 4 pixels, and mirrored, by the library's own sampling."""
    height, width = x.shape[2:]
    down, along = 8 * draws[:2] - 4
    turn = torch.where((draws[2] < 0.5) & torch.tensor(flip), -1.0, 1.0)
    zero, one = torch.zeros(len(x)), torch.ones(len(x))
    across = torch.stack([turn, zero, 2 * along / (width - 1)], 1)
    upright = torch.stack([zero, one, 2 * down / (height - 1)], 1)
    grid = F.affine_grid(torch.stack([across, upright], 1), list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, align_corners=True)


@pytest.mark.parametrize("flip", [False, True])
def test_shifts_are_bilinear_sampling_beyond_zeros(flip: bool) -> None:
    x = torch.rand(6, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    rows, columns = shifts(x, flip, torch.Generator().manual_seed(1))
    draws = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(rows @ x @ columns, sampled(x, draws, flip), atol=1e-5)
    assert 0 < int((draws[2] < 0.5).sum()) < 6


@pytest.mark.parametrize(
    "attack",
    [BRIEF, replace(BRIEF, shift=2), replace(BRIEF, targeted=False)],
    ids=["next", "shift", "untargeted"],
)
def test_images_are_those_of_the_methods_text(
    attack: TAP, faint: ImageSet, states: tuple[dict[str, Tensor], ...]
) -> None:
    data = ImageSet(faint.x, faint.y, replace(faint.info, hflip=True))
    ctx, x = Context(surrogates=states), to_float(faint.x)
    (model,) = surrogates(attack, data, ctx)
    goal = (data.y + attack.shift) % 3 if attack.targeted else data.y
    noise = torch.randn(x.shape, generator=ctx.generator("start restart 0 chunk 0"))
    delta = (noise * 8 / 255).clamp(-8 / 255, 8 / 255)
    for step in range(4):
        draws = torch.rand(3, len(x), generator=ctx.generator(f"shift restart 0 chunk 0 {step}"))
        current = (x + delta).requires_grad_(True)
        loss = F.cross_entropy(model(sampled(current, draws, True)).double(), goal)
        (gradient,) = torch.autograd.grad(loss if attack.targeted else -loss, current)
        delta = (delta - 0.8 / 255 * gradient.sign()).clamp(-8 / 255, 8 / 255)
    expected = (255 * (x + delta)).round().to(torch.uint8)
    # the last bit of a sum may differ, and with it the sign of a gradient that is nearly zero
    assert float((attack.poison(data, ctx).x != expected).float().mean()) < 0.005


def test_the_surrogate_predicts_the_target(
    faint: ImageSet, poisoned: tuple[ImageSet, Context]
) -> None:
    data, ctx = poisoned
    assert float((predictions(faint, ctx) == faint.y).float().mean()) > 0.9
    share = float((predictions(data, ctx) == (faint.y + 1) % 3).float().mean())
    assert share >= 0.99
    assert ctx.notes["crafting_success"] == pytest.approx(share)


def test_untargeted_noise_drives_away_from_the_label(
    faint: ImageSet, poisoned: tuple[ImageSet, Context]
) -> None:
    ctx = replace(poisoned[1], notes={})
    data = replace(SMALL, targeted=False).poison(faint, ctx)
    wrong = float((predictions(data, ctx) != faint.y).float().mean())
    assert wrong >= 0.99
    assert ctx.notes["crafting_success"] == pytest.approx(wrong)
    assert ctx.notes["crafting_loss"] < 0


def test_another_network_is_fooled_by_this_noise_and_not_by_its_opposite(
    faint: ImageSet, poisoned: tuple[ImageSet, Context]
) -> None:
    other = Context(seed_axes=("h", 0))
    other.surrogates = tuple(train_surrogate(SMALL, faint, other))
    opposite = faint.with_x(
        (2 * faint.x.int() - poisoned[0].x.int()).to(torch.uint8)
    )  # faint images are far from both ends
    goal = (faint.y + 1) % 3
    clean, moved, back = (
        float((predictions(data, other) == goal).float().mean())
        for data in (faint, poisoned[0], opposite)
    )
    assert max(clean, back) < 0.05
    assert moved > 0.4


def test_budget_holds_with_both_signs(faint: ImageSet, poisoned: tuple[ImageSet, Context]) -> None:
    facts = verify_poison(faint, poisoned[0], SMALL)
    assert facts["changed"] == 1.0
    assert facts["linf"] == pytest.approx(8 / 255)
    change = (poisoned[0].x.int() - faint.x.int())[(faint.x >= 8) & (faint.x <= 247)]
    assert 0.35 < float((change[change != 0] < 0).float().mean()) < 0.65


def test_more_restarts_find_a_lower_loss(
    faint: ImageSet, states: tuple[dict[str, Tensor], ...]
) -> None:
    one, four = Context(surrogates=states), Context(surrogates=states)
    BRIEF.poison(faint, one)
    replace(BRIEF, restarts=4).poison(faint, four)
    assert four.notes["crafting_loss"] < one.notes["crafting_loss"]


def test_a_killed_run_gives_the_same_bytes(
    faint: ImageSet,
    states: tuple[dict[str, Tensor], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_descent, "PIXELS", 16 * 16 * 16)
    attack = replace(SMALL, steps=3, restarts=2)
    expected = attack.poison(faint, Context(surrogates=states))
    notes: list[str] = []

    def stop(share: float, note: str) -> None:
        notes.append(note)
        if share > 0.51:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack.poison(faint, Context(surrogates=states, scratch=tmp_path, on_progress=stop))
    notes.clear()
    again = Context(
        surrogates=states, scratch=tmp_path, on_progress=lambda share, note: notes.append(note)
    )
    assert attack.poison(faint, again).fingerprint == expected.fingerprint
    assert set(notes) == {
        "restart 1 chunk 0",
        "restart 1 chunk 1",
        "restart 1 chunk 2",
        "restart 1 chunk 3",
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"restarts": 0}, "restarts=0, expected at least 1"),
        ({"surrogate_epochs": -1}, "surrogate_epochs=-1, expected at least 0"),
        ({"step_share": 1.5}, r"step_share=1\.5, expected 0 < step_share <= 1 .*share of eps"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TAP(**parameters)


def test_a_shift_to_the_own_class_is_refused(
    faint: ImageSet, states: tuple[dict[str, Tensor], ...]
) -> None:
    with pytest.raises(ValueError, match="shift=3 at 3 classes names each image's own class"):
        replace(SMALL, shift=3).poison(faint, Context(surrogates=states))
