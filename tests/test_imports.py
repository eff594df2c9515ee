"""The floors of the house: a module imports from its own room and from the floors below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import benchmark
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


def imported(source: str, known: set[str], package: str, types: bool = True) -> Iterator[str]:
    """Yield the project's modules that ``source`` imports, at its top or in a function.

    A name that ``benchmark`` itself offers counts as the module that it comes from.

    Args:
        package: the module's own package, from which relative imports start.
        types: whether imports for types alone count.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            whole = [*(above if node.level else ()), *([node.module] if node.module else ())]
            for alias in node.names:
                outer, inner = ".".join(whole), ".".join([*whole, alias.name])
                if inner in known:
                    yield inner
                elif outer == "benchmark":
                    yield benchmark._HOME.get(alias.name, outer)
                elif outer in known:
                    yield outer


def graph(root: Path, types: bool = True) -> dict[str, set[str]]:
    """Return module -> the modules that it imports; its own names in ``__init__`` are no arrows."""
    files = modules(root)
    found = {}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        text = file.read_text(encoding="utf-8")
        found[name] = {*imported(text, {*files}, package, types)} - {name}
    return {**found, "benchmark": set()}


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
    arrows = graph(ROOT, types=False)
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


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
        (
            "if TYPE_CHECKING:\n    from benchmark.cli import run",
            ["benchmark.storage.a imports benchmark.cli.run"],
        ),
        ("from ..cli import run", ["benchmark.storage.a imports benchmark.cli.run"]),
        (
            "from benchmark import run, ImageSet",
            ["benchmark.storage.a imports benchmark.workspace.functions"],
        ),
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
    found = upward({"benchmark.storage.a": set(imported(source, known, "benchmark.storage"))})
    assert [line.split(":")[0] for line in found] == arrows
