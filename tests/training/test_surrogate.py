"""Trained surrogates: planned as stages, shared, given to the attack, refused if untrained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmark import Attack, Context, ImageSet, attack
from benchmark.training.surrogate import (
    chance_accuracy,
    chance_loss,
    features,
    surrogates,
    train_surrogate,
)
from support.tiny_bench import HEAD, Bench

LOOKS = (
    HEAD
    + '''
from benchmark import surrogates

@attack(
    version=1,
    cite="nobody",
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs"{more}),
)
class Looks(Attack):
    """Note what the surrogates say of the images."""
    eps: float = 4 / 255
    surrogate: str = "resnet8_w16_s2"
    surrogate_protocol: str = "quick"
    surrogate_epochs: int = 40
    {field}

    def poison(self, data, ctx):
        assert ctx.surrogates is not None
        models = surrogates(self, data, ctx)
        x = data.x.float() / 255
        right = [(model(x).argmax(1) == data.y).float().mean().item() for model in models]
        ctx.note(models=len(models), right=right[-1])
        return data.map(lambda x: x ^ 1)
    {hook}
'''
)


def looks(more: str = "", field: str = "", hook: str = "") -> str:
    return LOOKS.format(more=more, field=field, hook=hook)


@attack(
    version=1,
    cite="nobody",
    trained_surrogate=("surrogate", "surrogate_protocol", "surrogate_epochs", "checkpoints"),
)
class Asks(Attack):
    surrogate: str = "resnet8_w16_s2"
    surrogate_protocol: str = "quick"
    surrogate_epochs: int = 12
    checkpoints: int = 1


def test_attacks_share_a_surrogate_of_the_same_parameters(bench: Bench) -> None:
    bench.method("looks", looks())
    bench.method("other", looks())
    bench.method("last", looks(', "checkpoints"', "checkpoints: int = 3"))
    attacks = [
        "looks",
        "other",
        "looks[surrogate_epochs=9]",
        "looks[eps=8/255]",
        "last",
        "lsp[patch=4]",
    ]
    plan = bench.plan(attacks=attacks, defenses="grayscale")
    stages = {stage.key: stage for stage in plan.stages}
    kinds = {str(cell.attack): [stages[key].kind for key in cell.stages] for cell in plan.cells}
    assert kinds.pop("lsp[patch=4]") == ["poison", "purify", "train"]
    assert set(map(tuple, kinds.values())) == {("surrogate", "poison", "purify", "train")}
    first = {str(cell.attack): cell.stages[0] for cell in plan.cells}
    assert first["looks"] == first["other"] == first["looks[eps=8/255]"]
    assert len(set(first.values())) == 4  # those three, other epochs, checkpoints, and lsp's poison


def test_an_attack_that_augments_has_a_surrogate_of_its_own(bench: Bench) -> None:
    bench.method("looks", looks())
    bench.method(
        "flips", looks(hook="def augment_surrogate(self, x, ctx):\n        return x.flip(3)")
    )
    first = [cell.stages[0] for cell in bench.plan(attacks=["looks", "flips"]).cells]
    assert len(set(first)) == 2


def test_a_run_trains_it_once_and_hands_over_its_checkpoints(bench: Bench) -> None:
    bench.method("last", looks(', "checkpoints"', "checkpoints: int = 3"))
    records = bench.records(attacks=["last", "last[eps=8/255]"])
    facts = [record.facts["poison"] for record in records.values()]
    assert len(facts) == 2
    assert facts[0] == facts[1]
    assert facts[0]["models"] == 3
    assert facts[0]["right"] == facts[0]["surrogate_train_acc"] >= 0.9
    assert len(list(bench.store.root.glob("artifacts/*/*/checkpoint2.safetensors"))) == 1
    again = bench.run(attacks=["last"])
    assert (again.done, again.cached) == (0, 3)


def test_checkpoints_are_equally_spaced_and_end_with_the_last_epoch(
    toy: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fit(victim, protocol, data, ctx, defense, after_epoch):  # type: ignore[no-untyped-def]
        for epoch in range(protocol.epochs):
            seen.append(epoch)
            model = nn.Linear(1, 1).requires_grad_(False)
            model.weight.fill_(epoch + 1)
            after_epoch(epoch, model)
        return type("Fit", (), {"train_acc": [1.0]})

    monkeypatch.setattr("benchmark.training.surrogate.fit", fit)
    states = train_surrogate(Asks(checkpoints=5), toy, Context())
    assert [float(state["weight"]) for state in states] == [2, 5, 7, 10, 12]
    with pytest.raises(
        ValueError,
        match="checkpoints=13 of a surrogate that is trained for 12 epochs; raise surrogate_epochs",
    ):
        train_surrogate(Asks(checkpoints=13), toy, Context())


def test_a_surrogate_that_did_not_learn_is_refused(toy: ImageSet, ctx: Context) -> None:
    shuffled = ImageSet(
        toy.x[:1].expand_as(toy.x), toy.y, toy.info
    )  # all images alike: nothing to learn
    with pytest.raises(
        ValueError,
        match=r"surrogate resnet8_w16_s2 did not learn: 3\d\.\d% .* 1 epochs of quick, "
        "where chance is 33.3%",
    ):
        train_surrogate(Asks(surrogate_epochs=1), shuffled, ctx)


def test_trained_on_the_spot_without_a_stage_and_frozen(toy: ImageSet, ctx: Context) -> None:
    (model,) = surrogates(Asks(surrogate_epochs=40), toy, ctx)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    (again,) = surrogates(Asks(surrogate_epochs=40), toy, Context(seed_axes=("test", 0)))
    assert all(
        torch.equal(one, other)
        for one, other in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_features_are_what_the_last_linear_layer_reads() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.last = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(self.early(x.flatten(1)).relu())
            return result

    net, x = Net(), torch.rand(5, 1, 2, 2)
    found, logits = features(net, x)
    assert torch.equal(found, net.early(x.flatten(1)).relu())
    assert torch.equal(logits, net(x))
    with pytest.raises(ValueError, match="Conv2d has no linear layer"):
        features(nn.Conv2d(1, 1, 1), x)


def test_an_unknown_protocol_of_a_surrogate_is_told_before_the_run(bench: Bench) -> None:
    bench.method("looks", looks())
    with pytest.raises(
        ValueError,
        match=r"attack looks: surrogate_protocol=std6: "
        r'unknown protocol "std6"; did you mean "std60"',
    ):
        bench.plan(attacks="looks[surrogate_protocol=std6]")


def test_chance_is_that_of_the_largest_class(toy: ImageSet) -> None:
    y = torch.zeros(len(toy), dtype=torch.int64)
    y[:15] = 2  # a quarter of 60
    skewed = ImageSet(toy.x, y, toy.info)
    assert (chance_accuracy(toy), chance_accuracy(skewed)) == pytest.approx((1 / 3, 0.75))
    assert chance_loss(toy) == pytest.approx(math.log(3))
    assert chance_loss(skewed) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
