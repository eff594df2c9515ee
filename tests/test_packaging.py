"""An installed package holds every file that the program reads."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from benchmark.analysis.published import load_published
from benchmark.catalogue.registry import ROOT
from benchmark.cli.main import program_name

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "setuptools"
]
CODE = ("benchmark", "uebench", "attacks", "defenses")


def folders() -> Iterator[Path]:
    for top in CODE:
        yield ROOT / top
        yield from (path for path in (ROOT / top).rglob("*") if path.is_dir())


def shipped(file: Path) -> bool:
    """Say whether setuptools would put this file, of a package that it finds, into a wheel."""
    package = ".".join(file.parent.relative_to(ROOT).parts)
    if not any(fnmatch(package, pattern) for pattern in SETUPTOOLS["packages"]["find"]["include"]):
        return False
    patterns = ["*.py"]
    for owner, files in SETUPTOOLS["package-data"].items():
        if owner in ("*", package):
            patterns += files
    return any(fnmatch(file.name, pattern) for pattern in patterns)


def test_every_file_of_the_packages_is_shipped() -> None:
    files = [
        file
        for folder in folders()
        if folder.name != "__pycache__"
        for file in folder.iterdir()
        if file.is_file()
    ]
    assert len(files) > 100
    assert [str(file.relative_to(ROOT)) for file in files if not shipped(file)] == []


def test_published_numbers_are_shipped_and_the_results_of_runs_are_not() -> None:
    results = ROOT / "results"
    assert load_published()
    for file in results.iterdir():
        if file.is_file():
            assert shipped(file), file
    assert not shipped(results / "quick" / "cells.csv")
    assert not shipped(results / "baselines" / "nightly.jsonl")
    assert not shipped(ROOT / "docs" / "compare.md")


def test_the_program_is_called_as_it_was_started() -> None:
    assert program_name("run_benchmark.py") == "run_benchmark.py"
    assert program_name("../clone/run_benchmark.py") == "run_benchmark.py"
    assert program_name("/usr/bin/uebench") == "uebench"
    assert program_name("/lib/uebench/__main__.py") == "uebench"
