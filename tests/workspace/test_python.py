"""The functions that Python users call: names, results, arrays, errors, and their page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import benchmark
import uebench
from benchmark.catalogue.registry import ROOT
from benchmark.planning.suite import SuiteError
from support.command_line import DIM, FAILING, plugin

PAGE = ROOT / "docs" / "python.md"
Randoms = tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_DATA", str(data_root))


@pytest.fixture
def arrays() -> Randoms:
    """40 images (N, H, W, C) of 4 classes, and their labels."""
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    return images, np.arange(40) % 4


# Names


def test_importing_either_name_loads_nothing_heavy() -> None:
    code = (
        "import sys, benchmark, uebench\n"
        "from uebench import run, load, leaderboard, compare, poison, purify\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_both_names_give_the_same_objects() -> None:
    assert uebench.__all__ == benchmark.__all__ == sorted(benchmark._HOME)
    assert {"run", "load", "leaderboard", "compare", "poison", "purify"} <= set(benchmark.__all__)
    for name in benchmark.__all__:
        assert getattr(uebench, name) is getattr(benchmark, name)
    for package in (benchmark, uebench):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            getattr(package, "nothing")  # noqa: B009


def test_the_module_runs_as_the_installed_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uebench", "run", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: uebench run " in done.stdout
    assert "run_benchmark" not in done.stdout


# Suites


def test_a_run_is_what_the_table_the_leaderboard_and_the_store_hold(tiny: str) -> None:
    first = benchmark.run(tiny, executor="inline")
    assert (first.outcome.exit_code, len(first.plan.cells)) == (0, 4)
    assert first.folder == Path("results/tiny")
    assert set(zip(first.table["attack"], first.table["defense"], strict=True)) == {
        (attack, defense) for attack in ("none", "lsp") for defense in ("none", "grayscale")
    }
    assert list(first.leaderboard["defense"]) == ["grayscale", "none"]
    assert benchmark.load("results", tiny).equals(first.table)
    assert set(benchmark.load()["key"]) == set(first.table["key"])
    again = benchmark.run(Path(tiny), executor="inline")
    assert (again.outcome.done, again.outcome.cached) == (0, first.outcome.done)


def test_a_suite_may_be_a_mapping(images: Path) -> None:
    suite = {
        "datasets": f"folder[path={images},size=16]",
        "attacks": "lsp[patch=4]",
        "defenses": ["none"],
        "victims": "resnet8_w16_s2",
        "protocols": "quick",
    }
    done = benchmark.run(
        suite,
        seeds="0-1",
        settings={"protocol.epochs": 1, "protocol.batch_size": 8, "ratios": [0.5, 1]},
        executor="inline",
    )
    assert done.folder == Path("results/custom")
    assert sorted(zip(done.table["seed"], done.table["ratio"], strict=True)) == [
        (0, 0.5),
        (0, 1.0),
        (1, 0.5),
        (1, 1.0),
    ]
    assert set(done.table["preset"]) == {"any"}


def test_plugins_run_and_a_failure_is_kept_in_the_outcome(tiny: str, tmp_path: Path) -> None:
    mine, failing = plugin(tmp_path, "dim", DIM), plugin(tmp_path, "failing", FAILING)
    done = benchmark.run(
        tiny,
        attacks="lsp",
        defenses=["dim", "failing"],
        plugins=[mine, Path(failing)],
        results="out",
        executor="inline",
    )
    assert done.outcome.exit_code == 1
    assert "out of luck [really]" in done.outcome.failures[0].error
    assert dict(zip(done.table["defense"], done.table["status"], strict=True)) == {
        "dim": "ok",
        "failing": "failed",
    }
    assert not Path("results").exists()


def test_two_defenses_are_compared(tiny: str) -> None:
    (found,) = benchmark.compare("grayscale", "none", tiny, executor="inline")
    assert (found.ours, found.reference, found.seeds) == ("grayscale", "none", 1)
    assert [contrast.column for contrast in found.attacks] == ["lsp"]
    acc = benchmark.load().set_index(["attack", "defense"])["test_acc"]
    expected = 100 * (acc["lsp", "grayscale"] - acc["lsp", "none"])
    assert found.mean.difference == pytest.approx(expected)


def test_wrong_arguments_are_named_as_they_were_given(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r'attacks=: unknown attack "emm"; did you mean "em"'):
        benchmark.run(tiny, attacks="emm")
    with pytest.raises(ValueError, match=r'datasets=\.\./x is a path.*"folder\[path=\.\./x\]"'):
        benchmark.run(tiny, datasets="../x")
    with pytest.raises(ValueError, match='seeds=: the seeds "3-1" hold no seed'):
        benchmark.run(tiny, seeds="3-1")
    with pytest.raises(TypeError, match=r"attacks=3 is of type int; expected a text or a list"):
        benchmark.run(tiny, attacks=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"suite=3 is of type int; expected a name, the path"):
        benchmark.run(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"plugins=3 is of type int; expected paths"):
        benchmark.run(tiny, plugins=3)  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match=r"settings=3 is of type int; expected a dictionary"):
        benchmark.run(tiny, settings=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected argument slot"):
        benchmark.run(tiny, slot=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^settings datasets=\.\./x is a path.*"):
        benchmark.run(tiny, settings={"datasets": "../x"})
    with pytest.raises(SuiteError, match="the arguments given: 1 problem") as caught:
        benchmark.run(tiny, settings={"tap.eps": 0.1})
    assert caught.value.problems[0].startswith("settings tap.eps=0.1: no tap in this suite")
    with pytest.raises(FileNotFoundError, match=r"^plugins=nope\.py: no such file"):
        benchmark.run(tiny, plugins="nope.py")
    with pytest.raises(ValueError, match="are one defense with the same parameters"):
        benchmark.compare("grayscale", " grayscale", tiny)
    with pytest.raises(ValueError, match=r"no records in nowhere/store \(there is no such folder"):
        benchmark.load("nowhere")
    with pytest.raises(ValueError, match=r"the suite tiny has no run in nowhere \(there is no"):
        benchmark.load("nowhere", tiny)
    with pytest.raises(ValueError, match=r"or name the folder of a run with results=$"):
        benchmark.load("nowhere")
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "seeds", [np.arange(2), [np.int64(0), 1], (0, 1), range(2), "0-1", torch.arange(2)]
)
def test_seeds_may_be_any_whole_numbers(seeds: Any, tiny: str) -> None:
    done = benchmark.run(tiny, seeds=seeds, policy="collect")
    assert sorted({cell.seed for cell in done.plan.cells}) == [0, 1]
    for one in (np.int64(3), np.array(3)):
        plan = benchmark.run(tiny, seeds=one, policy="collect").plan
        assert {cell.seed for cell in plan.cells} == {3}


@pytest.mark.parametrize(
    ("seeds", "error", "message"),
    [
        (1.5, TypeError, "seeds=1.5 is of type float; expected a whole number from 0 on"),
        ([0, "1"], TypeError, "seeds='1' is of type str"),
        (True, TypeError, "seeds=True is of type bool"),
        ([0, -1], ValueError, "seeds=-1: expected a whole number from 0 on"),
    ],
)
def test_other_seeds_are_refused(
    seeds: Any, error: type[Exception], message: str, tiny: str, arrays: Randoms
) -> None:
    with pytest.raises(error, match=message):
        benchmark.run(tiny, seeds=seeds)
    last = seeds[-1] if isinstance(seeds, list) else seeds
    for make in (benchmark.poison, benchmark.purify):
        with pytest.raises(error, match=message.replace("seeds", "seed")):
            make(*arrays, "none", seed=last)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame(), "table has no column dataset, .*; expected the long table, from load"),
        ("results", "table='results' is of type str"),
    ],
)
def test_a_leaderboard_needs_the_long_table(table: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        benchmark.leaderboard(table)


def test_messages_are_warnings_and_nothing_is_printed(
    tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torn = plugin(tmp_path, "torn", DIM + "\n  no")
    with pytest.warns(UserWarning, match="left out plugin torn: .*torn.py"):
        done = benchmark.run(tiny, policy="collect", plugins=torn)
    assert done.outcome.missing == 8
    assert capfd.readouterr() == ("", "")
    assert not Path("results/store").exists()


# Arrays


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("first", [True, False])
def test_images_come_back_in_their_type_layout_and_order(
    make: Callable[[Any], Any], first: bool, arrays: Randoms
) -> None:
    images, labels = arrays
    given = make(np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if first else images)
    before = given.copy() if isinstance(given, np.ndarray) else given.clone()
    made = benchmark.poison(given, labels, "lsp[patch=4]")
    assert type(made) is type(given)
    assert (made.dtype, made.shape) == (given.dtype, given.shape)
    assert bool((given == before).all())
    moved = np.asarray(made).transpose(0, 2, 3, 1) if first else np.asarray(made)
    assert (moved == benchmark.poison(images, labels, "lsp[patch=4]")).all()
    assert not (moved == images).all()


def test_what_is_made_is_what_the_method_makes(arrays: Randoms) -> None:
    images, labels = arrays
    grey = benchmark.purify(images, list(labels), "grayscale")
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    luma = images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1
    changed = benchmark.poison(images, labels, "ops+ops[pixels=2]")
    pixels = (changed != images).any(-1).sum((1, 2))
    assert 1 <= pixels.min() <= pixels.max() <= 3


def test_a_seed_of_numpy_is_the_seed_itself(arrays: Randoms) -> None:
    images, labels = arrays
    one = benchmark.poison(images, labels, "lsp[patch=4]", seed=np.int64(1))
    assert (one == benchmark.poison(images, labels, "lsp[patch=4]", seed=1)).all()


def test_an_ambiguous_shape_takes_the_layout_that_is_named(arrays: Randoms) -> None:
    images, labels = np.zeros((40, 3, 16, 3), np.uint8), arrays[1]
    images[:, 0] = 255  # a red channel, or a white row
    red = benchmark.purify(images, labels, "grayscale", layout="NCHW")
    assert np.unique(red).tolist() == [76]
    assert (benchmark.purify(images, labels, "grayscale", layout="NHWC") == images).all()


def test_seeds_decide_and_settings_of_torch_are_put_back(arrays: Randoms) -> None:
    images, labels = arrays
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(2)
    one, same, other = (
        benchmark.poison(images, labels, "lsp[patch=4]", seed=seed) for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 2


def test_plugins_may_purify(arrays: Randoms, tmp_path: Path) -> None:
    images, labels = arrays
    made = benchmark.purify(images, labels, "dim", plugins=[plugin(tmp_path, "dim", DIM)])
    assert (made == images // 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((40, 3, 16, 3), np.uint8)}, 'say which with layout="NCHW"'),
        ({"images": np.zeros((40, 16, 16), np.uint8)}, r"shape \(40, 16, 16\), expected \(N, C"),
        ({"images": np.zeros((40, 16, 16, 3))}, r"images are torch\.float64, expected uint8"),
        ({"images": np.zeros((0, 16, 16, 3), np.uint8), "labels": []}, "expected 0 whole numbers"),
        ({"labels": np.zeros(40)}, "labels are torch.float64"),
        ({"labels": np.arange(39)}, "expected 40 whole numbers, one an image"),
        ({"labels": np.arange(40) - 1}, "labels run from -1 to 38"),
        ({"labels": np.arange(40) % 2 - 1}, "labels run from -1 to 0, expected whole numbers from"),
        ({"labels": ["cat", "dog"] * 20}, "labels are of type <U3, expected 40 whole numbers"),
        ({"labels": np.array([{}] * 40)}, "labels are of type object, expected 40 whole numbers"),
        ({"labels": [[0], [0, 1]]}, "labels are no array"),
        ({"labels": np.zeros(40, int)}, "needs at least 2"),
        ({"images": [[[[0] * 3] * 16] * 16] * 40}, "images are of type list, expected a NumPy"),
        (
            {"images": np.zeros((40, 16, 16, 3), object)},
            "images are of type object, expected uint8",
        ),
        ({"spec": 3}, "spec=3 is of type int; expected the spec of one defense"),
        ({"layout": "nhwc"}, 'layout=\'nhwc\' is unknown; expected "NCHW" or "NHWC"'),
        ({"layout": "NCHW"}, r"shape \(40, 16, 16, 3\), expected \(N, C, H, W\) with 1 or 3"),
        ({"classes": 4.0}, r"classes=4\.0 is of type float"),
        ({"classes": 3}, r"labels run from 0 to 3, expected 0\.\.2"),
        ({"spec": "jpg"}, 'unknown defense "jpg"; did you mean "jpeg"'),
        ({"spec": "jpeg[quality=0]"}, "quality"),
        ({"spec": "at"}, 'defense "at" changes training, not images'),
        ({"spec": "none"}, 'defense "none" changes nothing; name one that changes images'),
        ({"spec": "jpeg+bdr"}, "joins two defenses"),
        ({"precision": "fp8"}, 'precision "fp8" is unknown'),
        ({"device": "gpu"}, 'unknown device "gpu"'),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], message: str, arrays: Randoms
) -> None:
    given = {"images": arrays[0], "labels": arrays[1], "spec": "jpeg", **change}
    with pytest.raises((ValueError, TypeError), match=message):
        benchmark.purify(**given)


def test_an_attack_that_cannot_protect_such_images_is_refused(arrays: Randoms) -> None:
    with pytest.raises(ValueError, match="patch=5 does not divide images of 16x16"):
        benchmark.poison(*arrays, "lsp[patch=5]")


# The page


@pytest.mark.e2e
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEBENCH_DATA", str(tmp_path / "data"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["run"].outcome.exit_code == 0
    assert len(names["run"].table) == 6
    assert list(names["board"]["attacks"]) == [1, 1, 1]
    assert (names["found"].ours, names["found"].reference) == ("jpeg", "grayscale")
    assert names["cleaned"].shape == names["images"].shape
    assert 1 <= np.abs(names["protected"].astype(int) - names["images"]).max() < 64


def test_every_function_stands_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in ("run", "load", "leaderboard", "compare", "poison", "purify"):
        assert f"benchmark.{name}(" in text


def test_a_draw_from_a_global_generator_repeats_and_is_named(
    arrays: Randoms, tmp_path: Path
) -> None:
    source = (
        "import numpy as np\nfrom benchmark import Defense, defense\n\n"
        '@defense(version=1, cite="nobody")\nclass Noise(Defense):\n    """Add noise."""\n\n'
        "    def purify(self, data, ctx):\n"
        "        return data.map(lambda x: x ^ int(np.random.randint(256)))\n"
    )
    mine = plugin(tmp_path, "noise", source)
    made = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="noise.* drew from NumPy's global generator"):
            made.append(benchmark.purify(*arrays, "noise", plugins=[mine]))
    assert np.array_equal(*made)


def test_a_draw_at_import_repeats_and_is_named(arrays: Randoms, tmp_path: Path) -> None:
    source = (
        "import numpy as np\nfrom benchmark import Defense, defense\n\n"
        'K = int(np.random.randint(256))\n\n@defense(version=1, cite="nobody")\n'
        'class Tint(Defense):\n    """Tint."""\n\n'
        "    def purify(self, data, ctx):\n        return data.map(lambda x: x ^ K)\n"
    )
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        mine = plugin(tmp_path / folder, "tint", source)
        with pytest.warns(UserWarning, match="tint.* in the import of its file"):
            made.append(benchmark.purify(*arrays, "tint", plugins=[mine]))
    assert np.array_equal(*made)
