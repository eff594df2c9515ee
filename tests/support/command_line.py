"""Helpers to call the command line in tests, watch what it loads and read what it writes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.catalogue.registry import ROOT

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "sklearn", "scipy")
# Run one command line after another in one process, and print the exit code and the heavy modules
# loaded so far for each.
WATCH = """
import json, sys
from benchmark.cli.main import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["run_benchmark.py", *line]
    try:
        main()
        code = None
    except SystemExit as end:
        code = end.code
    print("WATCH", json.dumps([line, code, sorted(set(sys.modules) & set(%r))]), flush=True)
""" % (HEAVY,)  # noqa: UP031  an f-string would need every brace twice
DIM = '''
from benchmark import Defense, defense

@defense(version=1, cite="nobody, 2024", needs=("clean:3",))
class Dim(Defense):
    """Halve the brightness."""
    share: float = 1 / 2

    def purify(self, data, ctx):
        return data.map(lambda x: (x * self.share).to(x.dtype))
'''
FAILING = DIM.replace("Dim", "Failing").replace(
    "return data.map", "raise RuntimeError('out of luck [really]')\n        return data.map"
)


@dataclass
class Result:
    """The result of a command line; ``out`` and ``err`` have no line breaks inside sentences."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


def run_tiny(call: Call, tiny: str, *args: str) -> Result:
    return call("run", tiny, "--executor", "inline", *args)


def watch(
    folder: Path, data_root: Path, *lines: list[str]
) -> tuple[list[tuple[int | None, list[str]]], str]:
    """Run command lines in one fresh process.

    Return the exit code and the heavy modules loaded so far, for each of them, and what they
    printed.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(lines)],
        cwd=folder,
        env={
            **os.environ,
            "UEBENCH_DATA": str(data_root),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "300",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [
        json.loads(line.removeprefix("WATCH "))
        for line in done.stdout.splitlines()
        if line.startswith("WATCH ")
    ]
    assert [line for line, _, _ in found] == list(lines)
    return [(code, modules) for _, code, modules in found], done.stdout + done.stderr


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def plugin(folder: Path, name: str, source: str) -> str:
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return str(folder / f"{name}.py")
