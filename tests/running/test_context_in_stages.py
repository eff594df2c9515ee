"""What the context tells methods in real stages: the images' kind, and how far a training is."""

from __future__ import annotations

import math

import pytest
import torch

from benchmark.api import Context
from benchmark.contract import check_method
from benchmark.training import surrogate
from support.tiny_bench import HEAD, Bench, one_method

# CutMix, for any number of classes. Yun et al., ICCV 2019, arXiv:1905.04899.
CUTMIX = (
    HEAD
    + '''
@defense(version=1, cite="arXiv:1905.04899")
class CutMix(Defense):
    """Paste a box of another image of the batch, and mix the labels by its area.

    Parameters:
        alpha: of the beta distribution of the area that stays.
        warmup: share of the epochs that train on whole images.
    """
    alpha: float = 1.0
    warmup: float = 0.0

    def augment(self, x, y, ctx):
        soft = torch.nn.functional.one_hot(y, ctx.info.num_classes).float()  # (B, K)
        if ctx.epoch < self.warmup * ctx.epochs:
            return x, soft
        rng = ctx.numpy_stream("box")
        height, width = ctx.info.height, ctx.info.width
        side = (1 - rng.beta(self.alpha, self.alpha)) ** 0.5
        tall, wide = round(side * height), round(side * width)
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        mixed = x.clone()
        rows, columns = slice(top, top + tall), slice(left, left + wide)
        mixed[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
        kept = 1 - tall * wide / (height * width)
        return mixed, kept * soft + (1 - kept) * soft.flip(0)
'''
)
NOTE = (
    "        info = ctx.info\n"
    "        ctx.note(seen=repr((info.num_classes, info.height, ctx.epoch, ctx.epochs)))\n"
)
TELLS = {
    "attack": f"def poison(self, data, ctx):\n{NOTE}        return data.map(lambda x: x ^ 1)",
    "purify": f"def purify(self, data, ctx):\n{NOTE}        return data",
    "train": "def loss(self, model, x, y, ctx):\n"
    "        now = [ctx.info.num_classes, ctx.epoch, ctx.epochs]\n"
    "        ctx.notes.setdefault('epochs', []).append(now)\n"
    "        return super().loss(model, x, y, ctx)",
}


def test_each_stage_with_images_knows_them(bench: Bench) -> None:
    bench.method("a", one_method("attack", TELLS["attack"], norm="none"))
    bench.method("p", one_method("defense", TELLS["purify"]))
    bench.method("t", one_method("defense", TELLS["train"]))
    found = bench.records(attacks="a", defenses=["p", "t"])
    facts = {name: record.facts for name, record in found.items()}
    assert facts["a + p"]["poison"]["seen"] == "(2, 16, None, None)"
    assert facts["a + p"]["purify"]["seen"] == "(2, 16, None, None)"
    two_batches_in_each_of_two_epochs = [[2, 0, 2], [2, 0, 2], [2, 1, 2], [2, 1, 2]]
    assert facts["a + t"]["train"]["epochs"] == two_batches_in_each_of_two_epochs


def test_a_surrogates_training_counts_its_own_epochs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate, "LEARNED", -math.inf)
    source = (
        "surrogate: str = 'resnet10_w16'\n"
        "    surrogate_protocol: str = 'quick'\n"
        "    surrogate_epochs: int = 3\n\n"
        "    def augment_surrogate(self, x, ctx):\n"
        "        ctx.notes['last'] = [ctx.info.num_classes, ctx.epoch, ctx.epochs]\n"
        "        return x\n\n"
        "    def poison(self, data, ctx):\n        ctx.note(epoch=str(ctx.epoch))\n"
        "        return data.map(lambda x: x ^ 1)"
    )
    trained = ("surrogate", "surrogate_protocol", "surrogate_epochs")
    bench.method("a", one_method("attack", source, norm="none", trained_surrogate=trained))
    (record,) = bench.records(attacks="a").values()
    assert record.facts["poison"]["epoch"] == "None"
    trained = next(stage for stage in bench.plan(attacks="a").stages if stage.kind == "surrogate")
    assert bench.store.manifest(trained.key)["facts"]["last"] == [2, 2, 3]


def test_cutmix_works_for_any_number_of_classes(bench: Bench) -> None:
    bench.method("cutmix", CUTMIX)
    results = check_method("defense", "cutmix", bench.registry)
    assert [result.detail for result in results if not result.passed] == []
    assert (
        "labels float32 (16, 10)" in {result.name: result for result in results}["augment"].detail
    )
    found = bench.records(defenses=["none", "cutmix", "cutmix[warmup=1.0]", "cutmix[warmup=0.5]"])
    losses = {record.defense: record.loss_curve for record in found.values()}
    assert losses["cutmix[warmup=1.0]"] == pytest.approx(losses["none"], abs=1e-4)
    assert losses["cutmix[warmup=0.5]"][0] == losses["cutmix[warmup=1.0]"][0]
    assert losses["cutmix"][0] != losses["none"][0]
    assert bench.run(defenses="cutmix").warnings == ()


def test_outside_a_stage_the_context_says_what_it_lacks(ctx: Context) -> None:
    assert (ctx.epoch, ctx.epochs) == (None, None)
    with pytest.raises(RuntimeError, match=r"set ctx\.info = data\.info first"):
        _ = ctx.info


def test_a_numpy_stream_goes_on_and_repeats_with_the_seed(ctx: Context) -> None:
    first = [ctx.numpy_stream("a").random() for _ in range(3)]
    other = Context(seed_axes=ctx.seed_axes)
    assert other.numpy_stream("b").random() not in first
    assert [other.numpy_stream("a").random() for _ in range(3)] == first
    assert len(set(first)) == 3
    assert torch.rand((), generator=ctx.stream("a")) == torch.rand((), generator=other.stream("a"))
