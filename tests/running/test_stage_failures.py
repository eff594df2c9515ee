"""Stages that must not make a result: broken methods, damaged inputs, ruined networks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmark.datasets._open import cached_facts
from benchmark.planning.suite import check_sets
from benchmark.running.scheduler.outcome import Outcome
from benchmark.running.scheduler.run import run_plan
from benchmark.running.stages import run_stage
from benchmark.storage.record import Record
from support.tiny_bench import COARSE, HEAD, PURIFY, SHADE, Bench, one_method, save_images

GOOD = ("none + none", "shade + none")
ATTACKS = {
    "over": (
        "return data.perturb(torch.full(data.x.shape, 40 / 255))",
        "breaks its budget: image .* changed by L-inf .*/255, allowed",
    ),
    "swaps": (
        "x = data.x.clone(); x[[0, 2, 4]] = x[[2, 4, 0]]; return data.with_x(x)",
        "breaks its budget: .*images look reordered: .* resembles clean image",
    ),
    "sorts": (
        "return data.select(torch.arange(len(data)).flip(0))",
        "changed 20 of 20 labels .* the images look reordered; put image i at position i",
    ),
    "relabels": (
        "return ImageSet(data.x, data.y * 0, data.info)",
        "changed 10 of 20 labels .* labels must stay as they are",
    ),
    "outside": (
        "return ImageSet(data.x, data.y + 1, data.info)",
        r"labels run from 1 to 2, expected 0\.\.1",
    ),
    "floats": (
        "return data.x / 255",
        "returned a tensor of torch.float32 .* expected an ImageSet of uint8",
    ),
    "nothing": ("pass", "returned NoneType, expected an ImageSet"),
    "drops": (
        "return data.select(torch.arange(5))",
        "returned 5 images for 20; return every image",
    ),
    "diverges": (
        "return data.perturb(torch.full(data.x.shape, float('nan')))",
        "delta of image 0 is not finite; the attack diverged",
    ),
}
POISON = "    def poison(self, data, ctx):"
LOSS = "def loss(self, model, x, y, ctx):\n        "
DEFENSES = {
    "floats": (
        PURIFY + "return data.x / 255",
        "returned a tensor of torch.float32 .* expected an ImageSet of uint8",
    ),
    "unrounded": (
        PURIFY + "return data.with_x(data.x / 255)",
        "images are torch.float32, expected uint8",
    ),
    "drops": (
        PURIFY + "return data.select(torch.arange(5))",
        "returned 5 of 20 images; return every image, or declare filters=True in its decorator",
    ),
    "sorts": (
        PURIFY + "return data.select(torch.arange(20).flip(0))",
        "labels .* look reordered; put image i at position i",
    ),
    "raises": (PURIFY + "raise KeyError('lost')", "KeyError: 'lost'"),
    "nan": (
        LOSS + "return super().loss(model, x, y, ctx) * float('nan')",
        "the training loss is nan in epoch 1 of 2",
    ),
    "infinite": (
        LOSS + "return super().loss(model, x, y, ctx) + float('inf')",
        "the training loss is inf in epoch 1 of 2",
    ),
    "single": (
        "def augment(self, x, y, ctx):\n        return x[:2]",
        r"TypeError: augment returned a Tensor, expected \(x, y\)",
    ),
    "exits": (LOSS + "raise SystemExit(3)", "SystemExit: 3"),
}


def check_failures(bench: Bench, outcome: Outcome, broken: dict[str, str]) -> None:
    """Require failed records of the ``broken`` cells (cell -> pattern of its error) alone."""
    assert outcome.exit_code == 1
    finished = {f"{record.attack} + {record.defense}": record for record in bench.store.records()}
    assert set(GOOD) <= set(finished)
    assert not set(broken) & set(finished)
    failures = [failure for failure in bench.store.failures() if failure["record"]]
    records = [Record.from_json(failure["record"]) for failure in failures]
    assert {f"{record.attack} + {record.defense}" for record in records} == set(broken)
    for record in records:
        assert (record.status, record.test_acc, record.curve) == ("failed", None, ())
        assert re.search(broken[f"{record.attack} + {record.defense}"], record.error), record.error
    tracebacks = [
        failure["traceback"] for failure in bench.store.failures() if failure["traceback"]
    ]
    assert len(tracebacks) == outcome.failed
    assert all(text.startswith("Traceback") and "run_stage" in text for text in tracebacks)


def test_attacks_that_break_a_promise_fail_alone(bench: Bench) -> None:
    bench.method("shade", SHADE)
    for name, (body, _) in ATTACKS.items():
        code = f"eps: float = 8 / 255\n\n    def poison(self, data, ctx):\n        {body}"
        bench.method(name, one_method("attack", code))
    outcome = bench.run(attacks=["none", "shade", *ATTACKS])
    assert (outcome.done, outcome.failed, outcome.blocked) == (4, len(ATTACKS), len(ATTACKS))
    check_failures(
        bench, outcome, {f"{name} + none": message for name, (_, message) in ATTACKS.items()}
    )


def test_defenses_that_break_a_promise_fail_alone(bench: Bench) -> None:
    bench.method("shade", SHADE)
    for name, (body, _) in DEFENSES.items():
        bench.method(name, one_method("defense", body))
    outcome = bench.run(attacks=["none", "shade"], defenses=["none", *DEFENSES])
    check_failures(
        bench,
        outcome,
        {
            f"{a} + {name}": message
            for a in ("none", "shade")
            for name, (_, message) in DEFENSES.items()
        },
    )
    assert outcome.failed == 2 * len(DEFENSES)
    assert outcome.blocked == 2 * sum("purify" in body for body, _ in DEFENSES.values())
    again = bench.run(attacks=["none", "shade"], defenses="none")
    assert (again.done, again.cached) == (0, 4)


def test_what_a_method_was_doing_survives_its_failure(bench: Bench) -> None:
    bench.method(
        "coarse",
        COARSE.replace("return data.map", "raise ValueError('stopped')\n        return data.map"),
    )
    assert bench.run(defenses="coarse").failed == 1
    (state,) = (bench.store.root / "scratch").glob("*/state")
    assert state.read_text() == "half done"


def test_an_inherited_purify_is_planned_as_any(bench: Bench) -> None:
    """Otherwise the cell would be trained undefended and reported as defended."""
    helper = HEAD + f"\nclass Shared(Defense):\n    {PURIFY}return data\n"
    bench.method(
        "mine",
        helper + one_method("defense", "pass").removeprefix(HEAD).replace("(Defense)", "(Shared)"),
    )
    plan = bench.plan(defenses=["none", "mine"])
    assert [stage.kind for stage in plan.stages].count("purify") == 1
    outcome = bench.run(defenses=["none", "mine"])
    assert (outcome.done, outcome.failed) == (len(plan.stages), 0)


def test_images_that_change_after_planning_are_noticed(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_images(images, {"train": 2, "test": 1})
    bench = Bench(images, tmp_path / "data", tmp_path, [])
    plan = bench.plan()
    (images / "train" / "class0" / "000.png").write_bytes(
        (images / "train" / "class1" / "001.png").read_bytes()
    )
    outcome = run_plan(plan.stages, bench.store, bench.machine, executor="inline", display="none")
    assert (outcome.failed, outcome.blocked) == (1, 1)
    assert re.search(
        r'data set "folder\[path=.*" changed since this run was planned '
        r"\(\w{12} then, \w{12} now\)",
        outcome.failures[0].error,
    )
    assert (
        run_plan(
            bench.plan().stages[:1], bench.store, bench.machine, executor="inline", display="none"
        ).done
        == 1
    )


def test_a_damaged_input_is_named_by_the_stage_that_reads_it(bench: Bench) -> None:
    bench.method("coarse", COARSE)
    poison, purify, _ = bench.plan(defenses="coarse").stages
    run_stage(poison, bench.store, bench.machine, lambda share, note: None, print)
    file = bench.store.root / "artifacts" / poison.key[:2] / poison.key / "images.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"images\.safetensors is corrupt: .* delete the folder .* and run again"
    ):
        run_stage(purify, bench.store, bench.machine, lambda share, note: None, print)
    assert not bench.store.is_done(purify)


@pytest.mark.parametrize(
    ("kind", "hook", "axes"),
    [("attack", "poison", {"attacks": "mine"}), ("defense", "purify", {"defenses": "mine"})],
)
def test_a_method_that_changes_its_input_is_refused(
    kind: str, hook: str, axes: dict[str, str], bench: Bench
) -> None:
    bench.method(
        "mine",
        one_method(
            kind, f"def {hook}(self, data, ctx):\n        data.x.fill_(0)\n        return data"
        ),
    )
    outcome = bench.run(**axes)
    assert outcome.failed == 1
    assert (
        f'{kind} "mine" changed its input in place; leave the images it is given as they are'
        in outcome.failures[0].error
    )
    assert list(bench.store.records()) == []


def test_a_network_that_the_last_step_ruins_is_no_result(bench: Bench) -> None:
    source = one_method(
        "defense",
        "def loss(self, model, x, y, ctx):\n        loss = super().loss(model, x, y, ctx)\n"
        "        loss.register_hook(lambda g: g * float('nan'))\n        return loss",
    )
    bench.method("mine", source)
    outcome = bench.run(
        defenses="mine", protocol_values={"epochs": 1, "batch_size": 1000, "lr": 0.05}
    )
    assert outcome.failed == 1
    assert "of the network is not finite after the last step (1)" in outcome.failures[0].error


CRASH = """def augment(self, x, y, ctx):
        return self.halves(x), y

    def halves(self, x):
        return x.view(3, -1, 7)"""


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_crash_shows_the_line_of_the_plugin_and_where_the_traceback_is(
    executor: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.method("mine", one_method("defense", CRASH))
    plan = bench.plan(defenses="mine")
    outcome = run_plan(
        plan.stages, bench.store, bench.machine, executor=executor, workers=1, display="plain"
    )
    (failure,) = outcome.failures
    lines = bench.plugins[0].read_text().splitlines()
    number = lines.index("        return x.view(3, -1, 7)") + 1
    assert failure.where == f"{bench.plugins[0]}:{number}: return x.view(3, -1, 7)"
    assert failure.file == bench.store.failure_file(failure.key)
    kept = json.loads(failure.file.read_text())["traceback"]
    assert kept.startswith("Traceback")
    assert "in run_stage" in kept
    told = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(told) if line.startswith("FAILED"))
    assert "RuntimeError: shape '[3, -1, 7]' is invalid" in told[first]
    assert told[first + 1 : first + 3] == [
        f"        at {failure.where}",
        f"        full traceback: {failure.file}",
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("info.nope", "AttributeError: .*nope"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise ValueError('too small')", "ValueError: too small"),
    ],
)
def test_a_crash_of_check_fails_the_cells_of_its_attack(
    line: str, error: str, bench: Bench
) -> None:
    code = f"def check(self, info):\n        {line}\n\n    "
    bench.method("shade", SHADE)
    bench.method("mine", SHADE.replace("def poison", f"{code}def poison"))
    chains = ["mine", "mine+shade", "shade+mine"]
    plan = bench.plan(attacks=["none", "shade", *chains])
    if "ValueError" not in error:  # the planner leaves these to the stage
        facts = bench.plan().cells[0].dataset
        cached = cached_facts(facts, bench.data_root, bench.registry)
        assert cached is not None
        pairs = [(cell.attack, cached.info) for cell in plan.cells]
        check_sets("tiny", pairs, bench.registry)
    outcome = bench.run_stages(plan.stages)
    check_failures(bench, outcome, {f"{attack} + none": error for attack in chains})
    assert {failure.where for failure in outcome.failures} == {
        f"{bench.plugins[1]}:{SHADE.splitlines().index(POISON) + 2}: {line}"
    }


def test_what_the_harness_refuses_needs_no_line(bench: Bench) -> None:
    """The message says what is wrong; a line of the harness would lead astray."""
    bench.method("floats", one_method("defense", DEFENSES["floats"][0]))
    (failure,) = bench.run(defenses="floats").failures
    assert (failure.where, failure.file) == ("", bench.store.failure_file(failure.key))


def test_a_plugin_that_cannot_be_imported_shows_its_line(bench: Bench) -> None:
    bench.method("mine", "import no_such_module\n" + one_method("defense", PURIFY + "return data"))
    (failure,) = bench.run(defenses="mine").failures
    assert failure.where == f"{bench.plugins[0]}:1: import no_such_module"
