"""What the command line says: help, lists, errors, checks of one method."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import __version__
from benchmark.planning.suite import suite_names
from support.command_line import DIM, FAILING, Call, Result, plugin, run_tiny, watch


@pytest.mark.e2e
def test_help_and_lists_load_nothing_heavy(tmp_path: Path, data_root: Path) -> None:
    kinds = ("attacks", "defenses", "victims", "datasets", "protocols", "suites")
    lines = [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        *(["list", kind] for kind in kinds),
        ["list", "attacks", "em"],
    ]
    found, printed = watch(tmp_path, data_root, *lines)
    assert found == [(0, [])] * len(lines)
    assert "dvae" in printed
    assert list(tmp_path.iterdir()) == []


def test_version(call: Call) -> None:
    assert call("--version") == Result(0, f"uebench {__version__}\n", "")


def test_help_names_every_command(call: Call) -> None:
    result = call("-h")
    assert result.code == 0
    for command in ("run", "plan", "list", "report", "check"):
        assert f"{command} " in result.out
    assert "--policy" in call("run", "--help").out


def test_a_method_is_listed_as_its_source_is_written(call: Call, tmp_path: Path) -> None:
    one = call("list", "attacks", "em").out
    assert "arXiv:2101.04898" in one
    assert "norm linf" in one
    assert "eps: float = 8 / 255, 0.5/255 <= eps < 1  L-inf budget in [0, 1] units." in one
    assert "granularity: sample or class = sample" in one
    assert "lsp" not in one
    every = call("list", "attacks").out
    assert all(f"{name}  " in every for name in ("em", "lsp", "ops", "none"))
    mine = call("list", "defenses", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    assert mine.out.splitlines() == [
        "dim  Halve the brightness.  nobody, 2024; version 1; needs clean:3",
        "    share: float = 1 / 2  ",
    ]
    assert "path: str (required)" in call("list", "datasets", "folder").out
    assert "308,826 parameters" in call("list", "victims").out


def test_protocols_and_suites_are_listed(call: Call) -> None:
    protocols = call("list", "protocols").out
    assert all(f"{name}  " in protocols for name in ("std60", "lite", "quick"))
    assert "epochs=60, batch_size=128, lr=0.1" in protocols
    assert "std60" not in call("list", "protocols", "lite").out
    suites = call("list", "suites").out
    assert all(f"{name}  " in suites for name in suite_names())
    assert "cifar10-lite" not in call("list", "suites", "quick").out


def test_a_broken_plugin_is_listed_with_its_reason(call: Call, tmp_path: Path) -> None:
    result = call(
        "list", "defenses", "--plugin", plugin(tmp_path, "mine", DIM.replace("1 / 2", "max(1, 2)"))
    )
    assert result.code == 0
    assert "jpeg" in result.out
    assert "left out defense mine:" in result.err
    assert "share = max(1, 2) is not a literal" in result.err


def test_a_plugin_file_without_a_method_is_named(call: Call, tmp_path: Path) -> None:
    result = call("list", "defenses", "--plugin", plugin(tmp_path, "empty", "x = 1\n"))
    assert result.code == 0
    assert "left out plugin empty" in result.err
    assert "holds no method; decorate a class with @attack, @defense or @dataset" in result.err


def test_values_that_a_method_refuses_are_told_at_once(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    result = run_tiny(
        call, tiny, "--attacks", "none,em[eps=8]", "--defenses", "none,jpeg[quality=0]"
    )
    assert result.code == 2
    assert "2 problems" in result.err
    assert (
        'attack "em": eps=8, expected 0.5/255 <= eps < 1 (L-inf budget in [0, 1] units)'
        in result.err
    )
    assert "write 8/255, not 8" in result.err
    assert 'defense "jpeg": quality=0, expected 1 <= quality <= 100' in result.err
    assert not (tmp_path / "results").exists()


def test_sets_that_an_attack_refuses_are_told_before_anything_is_trained(
    call: Call, tiny: str, images: Path, tmp_path: Path
) -> None:
    """With two classes, the class two places further on is the image's own."""
    result = run_tiny(
        call,
        tiny,
        "--attacks",
        "lsp[patch=5],none+tap[shift=2],aap[shift=4],sep",
        "--defenses",
        "none",
    )
    assert result.code == 2
    assert "3 problems" in result.err
    for attack, reason in (
        ("lsp[patch=5]", "patch=5 does not divide images of 16x16 pixels"),
        ("tap[shift=2]", "shift=2 at 2 classes names each image's own class"),
        ("aap[shift=4]", "shift=4 at 2 classes names each image's own class"),
    ):
        assert f'attack "{attack}" on folder: {reason}' in " ".join(result.err.split())
    assert not list((tmp_path / "results").rglob("*.safetensors"))
    exported = call(
        "poison",
        "tap[shift=2]",
        "--dataset",
        f"folder[path={images},size=16]",
        "--out",
        str(tmp_path / "out"),
    )
    assert exported.code == 2
    assert "names each image's own class" in exported.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "qick"], 'unknown suite "qick"; did you mean "quick"?'),
        (
            ["plan", "quick", "--attacks", "emm"],
            '--attacks: unknown attack "emm"; did you mean "em"?',
        ),
        (
            ["run", "quick", "--defenses", "none,jpeg[qualty=3]"],
            'defense "jpeg" has no parameter "qualty"; did you mean "quality"?',
        ),
        (
            ["run", "quick", "--dataset", "embeded"],
            'unknown dataset "embeded"; did you mean "embedded"?',
        ),
        (
            ["run", "quick", "--victim", "resnet19"],
            'unknown victim "resnet19"; did you mean "resnet18"?',
        ),
        (["run", "quick", "--protocol", "st60"], 'unknown protocol "st60"; did you mean "std60"?'),
        (["run", "quick", "--set", "protocol.epoch=2"], 'a protocol has no setting "epoch"'),
        (["run", "quick", "--seeds", "a"], 'cannot read the seeds "a"; write 0,1,2 or 0-4'),
        (
            ["run", "quick", "--device", "gpu"],
            'unknown device "gpu"; expected auto, cpu, cuda or cuda:0',
        ),
        (["run", "quick", "--device", "cuda:99"], 'device "cuda:99" was asked for but torch sees'),
        (["run", "quick", "--plugin", "absent.py"], "--plugin absent.py: no such file"),
        (["list", "attacks", "emm"], 'unknown attack "emm"; did you mean "em"?'),
        (["list", "protocols", "swift"], 'unknown protocol "swift"'),
        (["list", "suites", "fast"], 'unknown suite "fast"'),
        (["check", "jpg"], 'unknown method "jpg"; did you mean "jpeg"?'),
        (["report", "qick"], 'unknown suite "qick"'),
    ],
)
def test_wrong_names_end_with_one_message(
    args: list[str], message: str, call: Call, tmp_path: Path
) -> None:
    result = call(*args)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_say_how_it_is_used(call: Call) -> None:
    for args in (["frobnicate"], ["run", "quick", "--policy", "often"], ["list", "things"]):
        result = call(*args)
        assert result.code == 2
        assert "Usage: " in result.err
        assert args[0] in result.err


def test_missing_images_say_how_to_get_them(call: Call, tmp_path: Path) -> None:
    result = call("run", "cifar10-lite", "--data-root", str(tmp_path / "nothing"))
    assert result.code == 2
    assert "--download" in result.err
    result = call("plan", "quick", "--dataset", "folder[path=nowhere]")
    assert result.code == 2
    assert (
        "nowhere does not exist; "
        "folder[path=...] expects a folder with train/<class>/* and test/<class>/*" in result.err
    )


def test_a_store_that_cannot_be_written_is_named_before_any_work(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    (tmp_path / "blocked").write_text("a file")
    result = run_tiny(call, tiny, "--results", "blocked")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(
        "error: cannot write to blocked/store: a file stands where a folder should be"
    )


def test_check_of_good_and_broken_methods(call: Call, tmp_path: Path) -> None:
    good = call("check", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    assert good.code == 0, good.out
    assert "all checks passed" in good.out
    assert "FAILED" not in good.out
    broken = call(
        "check",
        "bad",
        "--plugin",
        plugin(tmp_path, "bad", DIM.replace("return data.map", "return data.x / 255 #")),
    )
    assert broken.code == 1
    assert "FAILED purify: " in broken.out
    assert "returned a tensor of torch.float32" in broken.out
    unreadable = call("check", "torn", "--plugin", plugin(tmp_path, "torn", DIM + "\n  nonsense"))
    assert unreadable.code == 2
    lines = (DIM + "\n  nonsense").count("\n") + 1
    assert unreadable.err == (
        f'error: "torn" cannot be read from {tmp_path}/torn.py: '
        f"line {lines}: unindent does not match any outer indentation level: nonsense\n"
    )


def test_check_shows_the_line_of_a_crash_and_keeps_the_traceback(
    call: Call, tmp_path: Path
) -> None:
    result = call("check", "failing", "--plugin", plugin(tmp_path, "failing", FAILING))
    assert result.code == 1
    lines = result.out.splitlines()
    crash = next(number for number, line in enumerate(lines) if "FAILED purify" in line)
    assert lines[crash].endswith("RuntimeError: out of luck [really]")
    assert lines[crash + 1].endswith("at failing.py:10: raise RuntimeError('out of luck [really]')")
    (kept,) = [line for line in lines if line.startswith("full tracebacks: ")]
    text = Path(kept.removeprefix("full tracebacks: ")).read_text(encoding="utf-8")
    assert text.startswith("defense failing, purify\nTraceback (most recent call last)")
    assert "RuntimeError: out of luck [really]" in text


SYNTAX = DIM.replace("data, ctx", "data ctx")
TOLD = "line 9: invalid syntax: def purify(self, data ctx):"


def test_a_syntax_error_is_told_once_with_its_line(call: Call, tiny: str, tmp_path: Path) -> None:
    file = plugin(tmp_path, "torn", SYNTAX)
    listed = call("list", "defenses", "--plugin", file)
    assert listed.err == f"left out plugin torn: {file}: {TOLD}\n"
    planned = call("plan", tiny, "--plugin", file)
    assert planned.err == f"left out plugin torn: {file}: {TOLD}\n"


@pytest.mark.parametrize(
    "args",
    [
        ["list", "defenses", "torn"],
        ["check", "torn"],
        ["plan", "TINY", "--defenses", "none,torn"],
        ["run", "TINY", "--defenses", "torn[share=0.3]"],
        ["poison", "torn", "--out", "out"],
    ],
)
def test_who_asks_for_a_plugin_with_a_syntax_error_is_told_its_line_once(
    args: list[str], call: Call, tiny: str, tmp_path: Path
) -> None:
    file = plugin(tmp_path, "torn", SYNTAX)
    result = call(*(tiny if part == "TINY" else part for part in args), "--plugin", file)
    assert result.code == 2
    assert result.err.count("invalid syntax") == 1
    assert f'torn" cannot be read from {file}: {TOLD}' in result.err


def test_check_can_tell_two_methods_of_one_name_apart(call: Call) -> None:
    both = call("check", "none")
    assert both.code == 0
    assert both.out.index("attack none") < both.out.index("defense none")
    assert "attack none" not in call("check", "none", "--kind", "defense").out
