"""The global random generators: seeded for a stage, watched in a method's hooks, put back."""

from __future__ import annotations

import random
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.api import Context, Defense
from benchmark.contract import toy_set
from benchmark.keys import axis_seed
from benchmark.running.deterministic import deterministic
from benchmark.running.global_random import (
    NUMPY,
    PYTHON,
    TORCH,
    seeded,
    seeded_stage,
    watch_hooks,
    watched,
)
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from benchmark.training.train import build_victim
from support.tiny_bench import HEAD, PURIFY, Bench, one_method

IMPORTS = "import random\nimport numpy as np\n"
MIX = "def augment(self, x, y, ctx):\n        "
# A victim with a dropout layer, which draws from torch's global generator in each step.
DROPOUT = '''
"""A linear victim with dropout."""

from torch import nn

def build(info):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(info.size, info.num_classes))
'''


def draws() -> tuple[float, float, float]:
    """One number of each global generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_seeded_draws_repeat_and_the_states_are_put_back() -> None:
    with seeded(7):
        first = draws()
    with seeded(7):
        outer = draws()
        with seeded(8):
            other = draws()
        after = draws()
    with seeded(7):
        assert (draws(), draws()) == (outer, after)
    assert first == outer
    assert all(a != b for a, b in zip(first, other, strict=True))
    with seeded(1):
        with pytest.raises(KeyError), seeded(2):
            raise KeyError("put back after an error too")
        assert draws() == _after(1)


def _after(seed: int) -> tuple[float, float, float]:
    return (
        random.Random(seed).random(),
        float(np.random.RandomState(seed % 2**32).rand()),
        float(torch.rand((), generator=torch.Generator().manual_seed(seed))),
    )


def test_a_seed_beyond_32_bits_reaches_each_generator() -> None:
    seed = axis_seed("a", 1, "global")
    assert seed > 2**32
    with seeded(seed):
        assert draws() == _after(seed)


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (lambda: random.random(), [PYTHON]),
        (lambda: np.random.beta(1, 1), [NUMPY]),  # noqa: NPY002
        (lambda: np.random.standard_normal(1), [NUMPY]),  # noqa: NPY002
        (lambda: torch.randperm(3), [TORCH]),
        (lambda: torch.nn.init.normal_(torch.empty(2)), [TORCH]),
        (lambda: torch.manual_seed(0), [TORCH]),
        (draws, [PYTHON, NUMPY, TORCH]),
        (lambda: torch.randperm(3, generator=torch.Generator().manual_seed(0)), []),
        (lambda: np.random.default_rng(0).random(), []),
        (lambda: random.Random(0).random(), []),
    ],
)
def test_draws_are_named(draw: Any, names: list[str]) -> None:
    with seeded(5), watched() as drawn:
        draw()
    assert drawn == names


def test_what_a_network_draws_in_its_forward_pass_is_not_counted() -> None:
    net, x = torch.nn.Dropout(0.5), torch.ones(4)
    with seeded(0):
        with watched() as drawn:
            net(x)
        assert drawn == [TORCH]
        with watched(net) as drawn:
            net(x)
        assert drawn == []
        with watched(net) as drawn:
            torch.rand(())
            net(x)
        assert drawn == [TORCH]
        with watched(net) as drawn:
            net(x)
            torch.rand(())
        assert drawn == [TORCH]
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_hooks_are_named_with_what_they_draw() -> None:
    class Mine(Defense):
        def augment(self, x: Any, y: Any, ctx: Context) -> Any:
            random.random()
            return x * float(np.random.rand()), y  # noqa: NPY002

        def at_test(self, x: Any) -> Any:
            return x * random.random()

    Mine.name = "mine"
    lines: list[str] = []
    ctx = Context(on_log=lines.append)
    method = watch_hooks(Mine(), ctx)
    assert set(vars(method)) == {"augment", "at_test"}, "hooks of the base class draw nothing"
    before = draws_to_come()
    with seeded_stage(ctx):
        method.augment(torch.ones(2), torch.ones(2), ctx)
        method.at_test(torch.ones(2))
    assert draws_to_come() == before
    note = (
        'defense "mine" drew from '
        "Python's global generator (random) in augment and at_test, "
        "NumPy's global generator (np.random) in augment"
    )
    assert ctx.notes == {"global_draws": note}
    (line,) = lines
    assert line.startswith(f"warning: {note}; the stage seeds the global generators")


def draws_to_come() -> tuple[Any, ...]:
    """What the global generators would give next, without drawing it."""
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    drawn = draws()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    return drawn


def test_torchs_settings_are_put_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with deterministic(1):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.get_num_threads() == 1
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 2
        assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_generator_is_seeded_watched_and_put_back() -> None:
    torch.cuda.init()  # type: ignore[no-untyped-call]

    def draw() -> float:
        return float(torch.rand((), device="cuda:0"))

    with seeded(5):
        first = draw()
        with seeded(6):
            other = draw()
        second = draw()
    with seeded(5):
        assert (draw(), draw()) == (first, second)
    assert first != other
    with watched() as drawn:
        draw()
        build_victim("resnet10_w16", toy_set().info, 0)
    assert drawn == [f"{TORCH} of cuda:0"]
    with watched() as drawn:
        build_victim("resnet10_w16", toy_set().info, 0)
    assert drawn == []


# In real stages


def numbers(record: Record) -> tuple[Any, ...]:
    return record.test_acc, record.train_acc, record.curve, record.loss_curve


@pytest.mark.parametrize(
    ("line", "generator"),
    [
        ("x = x * float(np.random.beta(1, 1))", NUMPY),
        ("x = x * random.random()", PYTHON),
        ("x = (x + 0.3 * torch.randn_like(x)).clamp(0, 1)", TORCH),
    ],
)
def test_a_number_that_hangs_on_a_global_generator_repeats_and_is_reported_once(
    line: str, generator: str, bench: Bench
) -> None:
    source = one_method("defense", f"{MIX}{line}\n        return x, y")
    bench.method("mine", IMPORTS + source)
    found = []
    for number in range(2):
        draws()  # what ran before must not matter
        store = Store(bench.work / str(number))
        outcome = bench.run(store, defenses="mine", seeds=[0, 1])
        assert outcome.exit_code == 0, outcome.failures
        (warning,) = outcome.warnings  # of two stages
        assert f'defense "mine" drew from {generator} in augment; ' in warning
        assert "ctx.generator" in warning
        found.append([numbers(record) for record in store.records()])
        for record in store.records():
            assert record.facts["train"]["global_draws"] in warning
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_draws_before_the_hooks_repeat_and_are_reported_in_every_stage(bench: Bench) -> None:
    start = "share: float = 0.5\n\n    def __post_init__(self):\n        "
    start += "vars(self)['low'] = random.uniform(0.4, 0.5)\n\n    "
    purify = PURIFY + "return data.map(lambda x: (x * (self.low + K / 2)).to(torch.uint8))\n\n    "
    body = f"{start}{purify}{MIX}return x * (self.low + K / 2), y"
    source = f"{IMPORTS}K = float(np.random.uniform())\n{one_method('defense', body)}"
    bench.method("mine", source)
    bench.method("other", f"# another content\n{source}")
    found = []
    for number in range(2):
        for module in [one for one in sys.modules if one.startswith("uebench_plugin_mine_")]:
            del sys.modules[module]
        draws()  # what ran before must not matter
        store = Store(bench.work / str(number))
        first = ["other"] * number  # nor which file a worker imports first
        outcome = bench.run(store, attacks=["none", "lsp[patch=4]"], defenses=[*first, "mine"])
        assert outcome.exit_code == 0, outcome.failures
        records = [record for record in store.records() if record.defense == "mine"]
        for record in records:
            for facts in (record.facts["purify"], record.facts["train"]):
                draw = (
                    f'defense "mine" drew from {NUMPY} in the import of its file, '
                    f"{PYTHON} in __post_init__"
                )
                assert facts["global_draws"] == draw
        found.append({record.attack: (record.artifacts, numbers(record)) for record in records})
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_the_import_of_a_victim_is_seeded(bench: Bench) -> None:
    scaled = DROPOUT.replace("nn.Dropout(0.5)", "nn.Dropout(K)")
    bench.method("drops", scaled.replace("def build", "K = 0.8 * random.random()\n\ndef build"))
    bench.edit(
        "drops", bench.plugins[-1].read_text().replace("from torch", "import random\nfrom torch")
    )
    found = []
    for number in range(2):
        for module in [one for one in sys.modules if one.startswith("uebench_plugin_drops_")]:
            del sys.modules[module]
        draws()
        store = Store(bench.work / str(number))
        outcome = bench.run(store, victims="drops", seeds=[number, 1 - number])
        assert outcome.exit_code == 0, outcome.failures
        found.append({record.seed: numbers(record) for record in store.records()})
    assert found[0] == found[1]


def test_draws_of_poison_and_purify_are_facts_of_their_images(bench: Bench) -> None:
    poison = (
        "def poison(self, data, ctx):\n"
        "        return data.perturb((torch.rand(data.x.shape) - 0.5) / 32)"
    )
    bench.method("hazy", one_method("attack", f"eps: float = 8 / 255\n\n    {poison}"))
    purify = PURIFY + "return data.map(lambda x: x // random.choice([2, 3]))"
    bench.method("dim", IMPORTS + one_method("defense", purify))
    artifacts = []
    for number in range(2):
        store = Store(bench.work / str(number))
        outcome = bench.run(store, attacks="hazy", defenses="dim")
        assert len(outcome.warnings) == 2
        (record,) = store.records()
        assert (
            record.facts["poison"]["global_draws"] == f'attack "hazy" drew from {TORCH} in poison'
        )
        assert (
            record.facts["purify"]["global_draws"] == f'defense "dim" drew from {PYTHON} in purify'
        )
        assert "global_draws" not in record.facts["train"]
        artifacts.append(record.artifacts)
    assert artifacts[0] == artifacts[1]


def test_dropout_of_a_victim_is_seeded_and_nobodys_fault(bench: Bench) -> None:
    bench.method("drops", DROPOUT)
    loss = "def loss(self, model, x, y, ctx):\n        return super().loss(model, x, y, ctx)"
    bench.method("mine", HEAD + one_method("defense", loss).removeprefix(HEAD))
    found = []
    for number in range(2):
        torch.rand(number + 1)
        store = Store(bench.work / str(number))
        outcome = bench.run(store, victims="drops", defenses=["none", "mine"])
        assert outcome.exit_code == 0, outcome.failures
        assert outcome.warnings == ()
        found.append([numbers(record) for record in store.records()])
        assert all("global_draws" not in record.facts["train"] for record in store.records())
    assert found[0] == found[1]
    assert found[0][0] == found[0][1], "a defense that changes nothing is compared in pairs"


def test_stages_of_this_process_leave_it_as_it_was(bench: Bench) -> None:
    threads = torch.get_num_threads()
    with seeded(3):
        before = draws_to_come()
        outcome = bench.run(attacks="lsp[patch=4]", defenses=["at[steps=1,step=8/255]", "jpeg"])
        assert outcome.exit_code == 0, outcome.failures
        assert draws_to_come() == before
    assert outcome.warnings == ()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (
        threads,
        False,
    )
    for record in bench.store.records():
        assert not re.search("global_draws", str(record.facts))
