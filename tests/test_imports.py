"""The floors of the house: a module imports from its own room and from the floors below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from benchmark.catalogue.registry import ROOT

# From the top floor down. Rooms of one floor do not import each other.
FLOORS = (
    {"cli"},
    {"workspace"},
    {"contract"},
    {"report", "running"},
    {"analysis", "attacks", "defenses", "datasets"},
    {"planning", "training"},
    {"storage", "api", "victims"},
    {"data"},
    {"keys", "catalogue", "benchmark"},  # "benchmark" itself holds names that load on first use
)
FLOOR = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}
LEAST = {"catalogue", "planning", "training", "running", "storage", "analysis", "report", "cli"}


def modules(root: Path) -> dict[str, Path]:
    """Return the dotted name of every module of the project."""
    files = [
        file for top in ("benchmark", "attacks", "defenses") for file in (root / top).rglob("*.py")
    ]
    named = {".".join(file.relative_to(root).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def room(module: str) -> str:
    top, *rest = module.split(".")
    return rest[0] if top == "benchmark" and rest else top


def imported(source: str, known: set[str]) -> Iterator[str]:
    """Return the project's modules that ``source`` imports, at its top or in a function.

    Imports for types alone do not count.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def graph(root: Path) -> dict[str, set[str]]:
    files = modules(root)
    return {
        name: {*imported(file.read_text(encoding="utf-8"), {*files})}
        for name, file in files.items()
    }


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """Return the arrows between rooms that do not go down."""
    return [
        f"{module} imports {target}: {room(target)} is not below {room(module)}"
        for module, targets in sorted(arrows.items())
        for target in sorted(targets)
        if room(target) != room(module) and FLOOR[room(target)] >= FLOOR[room(module)]
    ]


def test_no_module_imports_from_its_own_floor_or_from_above() -> None:
    arrows = graph(ROOT)
    assert {room(module) for module in arrows} <= set(FLOOR), "a room without a floor: add it above"
    assert {room(module) for module in arrows} >= LEAST
    assert upward(arrows) == []


def test_no_modules_import_each_other() -> None:
    TopologicalSorter(graph(ROOT)).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("source", "arrows"),
    [
        ("from benchmark.cli import run", ["benchmark.storage.a imports benchmark.cli.run"]),
        (
            "def f():\n    import benchmark.report.b",
            ["benchmark.storage.a imports benchmark.report.b"],
        ),
        ("from benchmark.api import Attack", ["benchmark.storage.a imports benchmark.api"]),
        ("from benchmark.keys import digest", []),
        ("if TYPE_CHECKING:\n    from benchmark.cli import run", []),
    ],
)
def test_an_arrow_upward_is_named(source: str, arrows: list[str]) -> None:
    known = {
        "benchmark.cli",
        "benchmark.cli.run",
        "benchmark.report.b",
        "benchmark.api",
        "benchmark.keys",
    }
    found = upward({"benchmark.storage.a": set(imported(source, known))})
    assert [line.split(":")[0] for line in found] == arrows
