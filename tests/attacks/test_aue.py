"""What is particular to AUE.

It minimises the error for a fixed number of epochs, with both turns behind fresh views; noise may
be class-wise; a killed run goes on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import _min_min, aue
from attacks._augment import augment
from attacks.aue import AUE
from benchmark import Context, ImageSet
from benchmark.data import to_float
from benchmark.running.verify import verify_poison
from benchmark.training import checkpoint as resume
from benchmark.training import surrogate
from support.counting_net import CountingNet, build_counting_net
from support.sets import random_set

SMALL = AUE(epochs=3, batch_size=25)


@pytest.fixture(autouse=True)
def nets(monkeypatch: pytest.MonkeyPatch) -> list[CountingNet]:
    """The surrogates that attacks build, all of them small."""
    built: list[CountingNet] = []

    def build(*args: Any) -> CountingNet:
        built.append(build_counting_net(*args))
        return built[-1]

    monkeypatch.setattr(_min_min, "build_victim", build)
    return built


def fixed_epoch_em(attack: AUE, data: ImageSet, ctx: Context) -> ImageSet:
    """Error minimisation without augmentation or stop rule, written down step by step."""
    by_class = attack.granularity == "class"
    model = build_counting_net("", data.info, ctx.seed("surrogate"))
    optimizer = torch.optim.SGD(model.parameters(), attack.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / attack.epochs))
    )
    noise = torch.zeros(
        data.info.num_classes if by_class else len(data), *data.x.shape[1:], dtype=torch.float16
    )
    slot = data.y if by_class else torch.arange(len(data))
    length = attack.step_share * attack.eps

    def images(i: Tensor) -> Tensor:
        return to_float(data.x[i]).to(memory_format=torch.channels_last)

    def shuffled(purpose: str) -> list[Tensor]:
        order = torch.randperm(len(data), generator=ctx.generator(purpose))
        return [order[i : i + attack.batch_size] for i in range(0, len(data), attack.batch_size)]

    def gradient(i: Tensor, seen: Tensor) -> Tensor:
        seen = seen.clone().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(model(seen), data.y[i], reduction="sum"), seen)[
            0
        ]

    for epoch in range(1, attack.epochs + 1):
        model.train().requires_grad_(True)
        for i in shuffled(f"model order {epoch}"):
            optimizer.zero_grad()
            F.cross_entropy(model((images(i) + noise[slot[i]]).clamp(0, 1)), data.y[i]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        model.eval().requires_grad_(False)
        if by_class:
            for i in shuffled(f"noise order {epoch}"):
                found = gradient(i, (images(i) + noise[slot[i]]).clamp(0, 1))
                total = torch.stack(
                    [found[data.y[i] == label].sum(0) for label in range(data.info.num_classes)]
                )
                noise = (noise - length * total.sign()).clamp(-attack.eps, attack.eps).half()
        else:
            for i in torch.arange(len(data)).split(attack.batch_size):  # type: ignore[no-untyped-call]
                x, delta = images(i), noise[i].float()
                for _ in range(5):
                    seen = (x + delta).clamp(0, 1)
                    delta = (seen - length * gradient(i, seen).sign() - x).clamp(
                        -attack.eps, attack.eps
                    )
                noise[i] = delta.half()
    return data.perturb(noise[slot])


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_without_strength_it_is_fixed_epoch_error_minimisation(
    granularity: str, toy: ImageSet
) -> None:
    attack = replace(SMALL, strength=0.0, granularity=granularity)
    expected = fixed_epoch_em(attack, toy, Context())
    assert attack.poison(toy, Context()).fingerprint == expected.fingerprint
    assert replace(attack, strength=0.5).poison(toy, Context()).fingerprint != expected.fingerprint


@pytest.mark.parametrize(("granularity", "steps"), [("sample", 5), ("class", 1)])
def test_every_step_has_fresh_views_and_counts_as_published(
    granularity: str,
    steps: int,
    toy: ImageSet,
    nets: list[CountingNet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, float, bool]] = []
    states: set[bytes] = set()

    def watched(x: Tensor, strength: float, generator: torch.Generator, flip: bool) -> Tensor:
        assert torch.equal(x, x.clamp(0, 1))
        calls.append((len(x), strength, flip))
        states.add(generator.get_state().numpy().tobytes())
        return augment(x, strength, generator, flip)

    monkeypatch.setattr(aue, "augment", watched)
    replace(SMALL, granularity=granularity).poison(toy, Context())
    assert sum(count for count, _, _ in calls) == 3 * (1 + steps) * len(toy)
    assert {(strength, flip) for _, strength, flip in calls} == {(0.6, toy.info.hflip)}
    assert len(states) == len(calls)
    assert nets[0].images == 3 * (1 + steps + 1) * len(toy)  # and once to count the error


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_budget_holds_and_noise_has_both_signs(granularity: str, toy: ImageSet) -> None:
    attack = replace(SMALL, granularity=granularity, eps=2 / 255)
    poisoned = attack.poison(toy, Context())
    facts = verify_poison(toy, poisoned, attack)
    assert facts["linf"] == pytest.approx(2 / 255, abs=1e-6)
    change = poisoned.x.int() - toy.x.int()
    assert 0.3 < float((change[change != 0] < 0).float().mean()) < 0.7


def test_class_wise_noise_is_one_pattern_a_class(toy: ImageSet) -> None:
    gray = toy.with_x(toy.x // 2 + 64)  # nothing is clipped
    change = replace(SMALL, granularity="class").poison(gray, Context()).x.int() - gray.x.int()
    patterns = [change[gray.y == label] for label in range(3)]
    assert all(bool((pattern == pattern[0]).all()) for pattern in patterns)
    assert len({pattern[0].numpy().tobytes() for pattern in patterns}) == 3


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_noise_makes_the_surrogates_error_small(granularity: str) -> None:
    """On random images there is nothing else to learn."""
    data, errors = random_set(60, 3, height=16, width=16), []
    for eps in (0.5 / 255, 16 / 255):
        ctx = Context()
        replace(SMALL, granularity=granularity, epochs=7, lr=0.05, eps=eps).poison(data, ctx)
        assert ctx.notes["rounds"] == 7
        errors.append(ctx.notes["surrogate_error"])
    assert errors[0] > 0.4
    assert errors[1] < 0.25


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_gray_images_unequal_classes_and_a_batch_of_one(
    granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        surrogate, "LEARNED", -math.inf
    )  # two epochs teach no more than the larger class
    data = random_set(51, 3, channels=1, height=9, width=12)
    data = ImageSet(data.x, data.y % 2, data.info)  # the last class has no image
    attack = replace(SMALL, granularity=granularity, epochs=2)
    assert verify_poison(data, attack.poison(data, Context()), attack)["changed"] == 1.0


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    granularity: str,
    toy: ImageSet,
    tmp_path: Path,
    nets: list[CountingNet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    attack, undisturbed = replace(SMALL, granularity=granularity), Context()
    expected = attack.poison(toy, undisturbed)
    seen = nets[0].images

    def until(round_: int) -> Context:
        def stop(share: float, note: str) -> None:
            if note.startswith(f"round {round_},"):  # played, but not kept yet
                raise KeyboardInterrupt

        return Context(scratch=tmp_path, on_progress=stop)

    for round_ in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            attack.poison(toy, until(round_))
    ctx = until(0)
    assert attack.poison(toy, ctx).fingerprint == expected.fingerprint
    assert ctx.notes == undisturbed.notes
    assert nets[-1].images * 3 == seen  # one round of three
    assert attack.poison(toy, until(1)).fingerprint == expected.fingerprint
    assert nets[-1].images == 0  # all had been played


def test_progress_rises(toy: ImageSet) -> None:
    shares: list[float] = []
    SMALL.poison(toy, Context(on_progress=lambda share, note: shares.append(share)))
    assert shares == sorted(shares)
    assert len(set(shares)) >= 3 * 3 - 1  # three chunks a round, the last of which end with 0.95


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        (
            {"strength": 1.5},
            r"strength=1\.5, expected 0 <= strength <= 1 \(of the augmentation, 0 \(none\)",
        ),
        ({"step_share": 0.0}, "expected 0 < step_share <= 1 .*share of eps"),
        ({"granularity": "image"}, "expected sample or class"),
        ({"epochs": 0}, "epochs=0, expected at least 1"),
        ({"batch_size": 1}, "batch_size=1, expected at least 2"),
        ({"noise_steps": -1}, "noise_steps=-1, expected at least 0"),
        ({"lr": 0.0}, "lr=0, expected more than 0"),
    ],
)
def test_bad_parameters(parameters: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AUE(**parameters)  # type: ignore[arg-type]
