"""The options that commands share, and how a command receives them."""

from __future__ import annotations

from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.cli.options import OPTIONS, Axes, Place, Work, program_of, with_options, workspace_of

AXES = {"--attacks", "--defenses", "--dataset", "--victim", "--protocol", "--seeds", "--set"}
PLACE = {"--plugin", "--results", "--data-root", "--download", "--device"}
WORK = {"--slots", "--slots-per-gpu", "--executor", "--policy"}


def options(command: str) -> set[str]:
    """Return the long names of a command's options, without ``--no-...``."""
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    return {name for param in found.params for name in param.opts if name.startswith("--")}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("run", AXES | PLACE | WORK),
        ("plan", AXES | PLACE),
        ("compare", AXES - {"--defenses"} | PLACE | WORK | {"--against", "--suite"}),
        ("regress", AXES | PLACE | WORK - {"--policy"} | {"--baselines", "--confirm", "--again"}),
        ("baseline accept", AXES | PLACE - {"--download"} | {"--baselines", "--add"}),
        ("report", AXES | PLACE - {"--download"} | {"--all", "--published", "--figures"}),
        ("poison", PLACE | {"--out", "--dataset", "--format", "--seed"}),
        ("purify", PLACE | {"--out", "--dataset", "--format", "--seed"}),
        ("agree", {"--plugin", "--results", "--published"}),
        ("table", {"--plugin", "--results", "--license"}),
        ("merge", {"--results", "--artifacts"}),
        ("list", {"--plugin"}),
        ("check", {"--plugin", "--kind"}),
    ],
)
def test_a_command_has_these_options(command: str, expected: set[str]) -> None:
    assert options(command) >= expected
    assert options(command) - expected <= {"--explain"}


def test_a_command_is_called_with_the_dataclasses_built() -> None:
    seen: list[Any] = []
    program = typer.Typer()

    @program.command()
    @with_options("victim", "policy")
    def show(axes: Axes, place: Place, work: Work, name: str = "none") -> None:
        seen.append((name, axes, place, work))

    line = [
        "--name",
        "x",
        "--attacks",
        "em",
        "--slots",
        "3",
        "--plugin",
        "a.py",
        "--plugin",
        "b.py",
    ]
    assert CliRunner().invoke(program, line).exit_code == 0
    ((name, axes, place, work),) = seen
    assert (name, axes) == ("x", Axes(attacks="em"))
    assert work == Work(slots=3)
    assert [str(file) for file in place.plugin] == ["a.py", "b.py"]
    assert CliRunner().invoke(program, ["--victim", "x"]).exit_code == 2
    show()  # the program without a command calls run like this
    assert seen[1] == ("none", Axes(), Place(), Work())


def test_axes_are_those_that_were_given() -> None:
    assert Axes().given() == {}
    axes = Axes(attacks="em[eps=8/255,step=1/255],lsp", dataset="embedded", seeds="0-2,5")
    assert axes.given() == {
        "attacks": ["em[eps=8/255,step=1/255]", "lsp"],
        "datasets": ["embedded"],
        "seeds": [0, 1, 2, 5],
    }
    with pytest.raises(ValueError, match=r'^--seeds: cannot read the seeds "x"'):
        Axes(seeds="x").given()
    assert set(OPTIONS.values()) == AXES - {"--set"}


def test_a_workspace_loads_what_is_asked_for_and_no_more() -> None:
    workspace = workspace_of(Place(device="gpu"))
    assert str(workspace.store.root) == "results/store"
    assert workspace.policy == "missing"
    with pytest.raises(ValueError, match='unknown device "gpu"'):
        workspace.machine  # noqa: B018  it raises


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("run_benchmark.py run quick", "python run_benchmark.py"),
        ("uebench report quick", "uebench"),
    ],
)
def test_the_program_is_started_as_the_user_did(command: str, program: str) -> None:
    assert program_of(command) == program
