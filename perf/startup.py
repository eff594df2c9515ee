"""Time ``--help``, ``list``, ``plan`` and a run with everything cached, each in a fresh process.

    python perf/startup.py [--repeats 5] [--results FOLDER]

Without ``--results`` the script first runs a small grid (4 attacks, 4 defenses, few images) in a
temporary folder and then times it. With ``--results`` it times the suite ``quick`` in that folder,
which must be finished. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELP_TARGET, LIST_TARGET, RUN_TARGET = 0.3, 0.5, 3.0  # seconds
SMALL = (
    "--dataset=embedded[train_per_class=20,test_per_class=10]",
    "--attacks=none,lsp,ops,ar",
    "--defenses=none,grayscale,jpeg,bdr",
    "--set=protocol.epochs=1",
)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument(
        "--results",
        type=Path,
        help="results of a finished quick suite; a small grid of its own without it",
    )
    return options


def timed(arguments: Sequence[str], repeats: int) -> list[float]:
    """Return the seconds of each run of the command line.

    Raises:
        SystemExit: if the command fails.
    """
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "run_benchmark.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        took.append(time.perf_counter() - start)
        if result.returncode:
            raise SystemExit(
                f"run_benchmark.py {' '.join(arguments)} ended with "
                f"{result.returncode}:\n{result.stderr}{result.stdout}"
            )
    return took


def measure(run: Sequence[str], repeats: int) -> list[tuple[object, ...]]:
    """Return the rows of the table; ``run`` holds the arguments of the cached run."""
    from _common import median, verdict

    timed(["run", *run], 1)  # computes what is missing, and the report
    rows: list[tuple[object, ...]] = []
    for name, arguments, target in (
        ("--help", ["--help"], HELP_TARGET),
        ("list defenses", ["list", "defenses"], LIST_TARGET),
        ("plan", ["plan", *run], None),  # it has no target
        ("run, all cached", ["run", *run], RUN_TARGET),
    ):
        took = timed(arguments, repeats)
        rows.append(
            (
                name,
                median(took),
                min(took),
                max(took),
                "" if target is None else verdict(median(took), target),
            )
        )
    return rows


def main() -> None:
    options = parser().parse_args()
    if options.results is not None:
        rows = measure(["quick", f"--results={options.results.resolve()}"], options.repeats)
    else:
        with tempfile.TemporaryDirectory(prefix="uebench-perf-") as folder:
            rows = measure(["quick", *SMALL, f"--results={folder}"], options.repeats)
    from _common import machine, print_table

    print_table(
        f"seconds of a fresh process, {options.repeats} repeats; {machine()}",
        ("", "median", "least", "most", ""),
        rows,
    )


if __name__ == "__main__":
    main()
