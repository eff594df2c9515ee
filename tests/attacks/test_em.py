"""What is particular to EM: signed noise in the budget, one pattern a class, a fooled surrogate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks import em
from attacks._min_min import MinMin, batches
from attacks.em import EM
from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.running.verify import verify_poison
from benchmark.training import checkpoint as resume
from benchmark.training import surrogate
from benchmark.training.disk_tensor import DiskTensor

SMALL = EM(
    surrogate="resnet10_w16", max_rounds=3, model_steps=4, noise_steps=4, batch_size=20, lr=0.05
)


def free(data: ImageSet) -> Tensor:
    """Where a change of 8 levels cannot be clipped."""
    return (data.x >= 8) & (data.x <= 247)


@pytest.fixture(scope="module")
def sample_wise(toy: ImageSet) -> tuple[ImageSet, Context]:
    ctx = Context(seed_axes=("em", 0))
    return SMALL.poison(toy, ctx), ctx


@pytest.fixture(scope="module")
def class_wise(toy: ImageSet) -> ImageSet:
    return replace(SMALL, granularity="class", class_share=0.5).poison(
        toy, Context(seed_axes=("em", 0))
    )


def test_budget_holds_and_every_image_changes(
    toy: ImageSet, sample_wise: tuple[ImageSet, Context]
) -> None:
    facts = verify_poison(toy, sample_wise[0], SMALL)
    assert facts["changed"] == 1.0
    assert facts["linf"] is not None
    assert 4 / 255 < facts["linf"] <= 8 / 255 + 1e-9


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_noise_has_both_signs(
    granularity: str, toy: ImageSet, sample_wise: tuple[ImageSet, Context], class_wise: ImageSet
) -> None:
    poisoned = sample_wise[0] if granularity == "sample" else class_wise
    change = (poisoned.x.int() - toy.x.int())[free(toy)]
    change = change[change != 0]
    assert 0.4 < float((change < 0).float().mean()) < 0.6


def test_class_wise_noise_is_one_pattern_a_class(toy: ImageSet, class_wise: ImageSet) -> None:
    patterns = []
    for label in range(3):
        mine = toy.y == label
        change, seen = (class_wise.x.int() - toy.x.int())[mine], free(toy)[mine]
        low = change.masked_fill(~seen, 99).amin(0)
        high = change.masked_fill(~seen, -99).amax(0)
        assert torch.equal(low[seen.any(0)], high[seen.any(0)])
        patterns.append(low)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(patterns[a], patterns[b])


def test_sample_wise_noise_does_not_depend_on_the_batch_of_the_noise_step(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate, "LEARNED", -math.inf)  # one round teaches nothing
    attack = replace(SMALL, max_rounds=1)
    whole = attack.poison(toy, Context())
    monkeypatch.setattr(em, "NOISE_BATCH", 7)
    parts = attack.poison(toy, Context())
    # the sums of a convolution may differ in the last bit, and with it the sign of a gradient
    # that is nearly zero
    assert float((whole.x != parts.x).float().mean()) < 0.002


def test_a_plugins_victim_can_be_the_surrogate(toy: ImageSet, tmp_path: Path) -> None:
    file = tmp_path / "slim.py"
    file.write_text(
        "from benchmark.victims._resnet import ResNet\n\n"
        "def build(info):\n    return ResNet((1,), 4, info.num_classes)\n"
    )
    slim = replace(SMALL, surrogate="slim", max_rounds=1)
    assert (
        verify_poison(toy, slim.poison(toy, Context(registry=Registry((file,)))), slim)["changed"]
        == 1.0
    )
    with pytest.raises(ValueError, match='unknown victim "slim"'):
        slim.poison(toy, Context())


def test_stops_once_the_surrogate_is_fooled(toy: ImageSet) -> None:
    ctx = Context(seed_axes=("stop", 0))
    attack = EM(
        surrogate="resnet10_w16",
        max_rounds=12,
        model_steps=6,
        noise_steps=5,
        batch_size=30,
        lr=0.05,
        stop_error=0.05,
    )
    attack.poison(toy, ctx)
    assert ctx.notes["surrogate_error"] <= 0.05
    assert ctx.notes["rounds"] < 12


def test_stops_at_the_last_round_otherwise(sample_wise: tuple[ImageSet, Context]) -> None:
    notes = sample_wise[1].notes
    assert notes["rounds"] <= 3
    assert notes["rounds"] == 3 or notes["surrogate_error"] <= 0.01


def test_same_seed_same_bytes_and_another_seed_other_bytes(
    toy: ImageSet, class_wise: ImageSet
) -> None:
    attack = replace(SMALL, granularity="class", class_share=0.5)
    assert attack.poison(toy, Context(seed_axes=("em", 0))).fingerprint == class_wise.fingerprint
    assert attack.poison(toy, Context(seed_axes=("em", 1))).fingerprint != class_wise.fingerprint


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 8.0}, "write 8/255, not 8"),
        ({"step": 0.0}, r"in \[0, 1\] units"),
        ({"granularity": "image"}, "expected sample or class"),
        ({"max_rounds": 0}, "max_rounds=0, expected at least 1"),
        ({"noise_steps": -1}, "noise_steps=-1, expected at least 0"),
        ({"lr": 0.0}, "lr=0, expected more than 0"),
        ({"class_share": -3.0}, "class_share=-3, expected 0 < class_share <= 1"),
        ({"stop_error": 5.0}, "stop_error=5, expected less than 1"),
    ],
)
def test_bad_parameters(parameters: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EM(**parameters)  # type: ignore[arg-type]


def test_a_batch_of_one_image_is_left_out() -> None:
    parts = batches(torch.arange(7).flip(0), 3)
    assert [part.tolist() for part in parts] == [[6, 5, 4], [3, 2, 1]]
    with pytest.raises(ValueError, match="at least 2 images; got 7 images in batches of 1"):
        batches(torch.arange(7), 1)


def test_the_surrogates_batches_go_round_in_one_order(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(MinMin, "model_step", lambda game, batch, max_norm: seen.append(batch))
    monkeypatch.setattr(MinMin, "sample_turn", lambda game, steps, length: None)
    monkeypatch.setattr(surrogate, "LEARNED", -math.inf)
    replace(SMALL, stop_error=-1.0).poison(toy, Context())
    order = torch.randperm(len(toy), generator=Context().generator("order"))
    assert torch.equal(torch.cat(seen), order.repeat(4))  # three rounds of 4 batches of 20


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    granularity: str, toy: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    attack = replace(SMALL, granularity=granularity, model_steps=2, noise_steps=1)
    undisturbed = Context()
    expected = attack.poison(toy, undisturbed)
    steps: list[int] = []
    real = MinMin.model_step

    def counted(game: MinMin, batch: Tensor, max_norm: float) -> None:
        steps.append(len(batch))
        real(game, batch, max_norm)

    monkeypatch.setattr(MinMin, "model_step", counted)

    def until(round_: int) -> Context:
        def stop(share: float, note: str) -> None:
            if note.startswith(f"round {round_},"):  # played, but not kept yet
                raise KeyboardInterrupt

        return Context(scratch=tmp_path, on_progress=stop)

    for round_ in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            attack.poison(toy, until(round_))
    ctx = until(0)
    assert attack.poison(toy, ctx).fingerprint == expected.fingerprint
    assert ctx.notes == undisturbed.notes
    assert len(steps) == 2 * (2 + 2 + 1)  # rounds 1 and 2, then 2 and 3, then 3
    assert attack.poison(toy, until(1)).fingerprint == expected.fingerprint
    assert len(steps) == 2 * (2 + 2 + 1)  # all had been played


def test_a_full_disk_leaves_no_half_written_noise(
    toy: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, calls = replace(SMALL, model_steps=2, noise_steps=1), list[None]()
    expected = attack.poison(toy, Context()).fingerprint
    write = DiskTensor.__setitem__
    monkeypatch.setattr(em, "NOISE_BATCH", 20)

    def full(rows: DiskTensor, where: slice | Tensor, values: Tensor) -> None:
        calls.append(None)
        if len(calls) == 5:  # in the second round
            raise OSError(28, "No space left on device")
        write(rows, where, values)

    monkeypatch.setattr(DiskTensor, "__setitem__", full)
    with pytest.raises(OSError, match="No space left"):
        attack.poison(toy, Context(scratch=tmp_path))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".rows", ".safetensors"]
    assert attack.poison(toy, Context(scratch=tmp_path)).fingerprint == expected
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".rows", ".safetensors"]


def test_noise_that_has_vanished_starts_the_game_anew(toy: ImageSet, tmp_path: Path) -> None:
    """Another run of the same stage goes on and deletes the files of earlier rounds."""
    attack, lines = replace(SMALL, model_steps=2, noise_steps=1), list[str]()
    expected = attack.poison(toy, Context(scratch=tmp_path)).fingerprint
    (noise,) = tmp_path.glob("*.rows")  # those of the rounds before are gone
    noise.unlink()
    assert (
        attack.poison(toy, Context(scratch=tmp_path, on_log=lines.append)).fingerprint == expected
    )
    assert "the noise of round 3 cannot be read" in lines[1]
    assert len(list(tmp_path.glob("*.rows"))) == 1


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_a_surrogate_that_does_not_learn_is_refused(granularity: str, toy: ImageSet) -> None:
    message = (
        "the surrogate resnet10_w16 did not learn: its error on the poisoned set is 66.7% "
        "after 3 rounds, where chance has 66.7%"
    )
    with pytest.raises(ValueError, match=message):
        replace(SMALL, granularity=granularity, lr=1e-9, noise_steps=1).poison(toy, Context())


def test_a_surrogate_that_diverges_is_named(toy: ImageSet) -> None:
    with pytest.raises(
        FloatingPointError, match="not finite in round 1; the training diverged, lower lr"
    ):
        replace(SMALL, lr=1e30).poison(toy, Context())


def test_official_adds_the_positive_part_of_the_same_noise(
    toy: ImageSet, sample_wise: tuple[ImageSet, Context]
) -> None:
    official = replace(SMALL, preset="official").poison(toy, Context(seed_axes=("em", 0)))
    signed = sample_wise[0].x.int() - toy.x.int()
    assert torch.equal(official.x.int() - toy.x.int(), signed.clamp_min(0))


def test_the_preset_came_later_and_moved_no_key() -> None:
    registry = Registry()
    assert "preset" not in registry.resolve("attack", Spec("em", {})).params
    assert (
        registry.resolve("attack", Spec("em", {"preset": "clean"})).params
        == registry.resolve("attack", Spec("em", {})).params
    )
    assert (
        registry.resolve("attack", Spec("em", {"preset": "official"})).params["preset"]
        == "official"
    )
    with pytest.raises(ValueError, match='preset="released", expected clean or official'):
        registry.build("attack", Spec("em", {"preset": "released"}))
