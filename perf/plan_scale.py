"""Measure how long planning takes and how much memory a plan needs, in a process of its own.

    python perf/plan_scale.py [--seeds 100]

The grid has 10 attacks, 10 defenses and 100 seeds: 10,000 cells. The script runs no stage and reads
no data set. It prints the seconds of ``resolve_suite`` and ``make_plan``, and the largest resident
set of the whole process, Python and the imported modules included.
"""

from __future__ import annotations

import argparse
import resource
import time

from benchmark.catalogue.registry import Registry
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import Suite, resolve_suite

SECONDS, MEGABYTES = 2.0, 150.0
ATTACKS = ("none", "em", "rem", "sem", "tap", "ntga", "lsp", "ops", "ar", "em+lsp")
FILTERS = ("none", "grayscale", "blur", "bdr", "jpeg", "jpeg[quality=30]")
DEFENSES = (*FILTERS, "vae", "dvae", "dvae[kd=5.0]", "at")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--seeds", type=int, default=100, help="victim seeds, 100 cells each")
    return made


def main() -> None:
    options = parser().parse_args()

    registry = Registry()
    suite = Suite(
        name="scale",
        attacks=ATTACKS,
        defenses=DEFENSES,
        protocols=("quick",),
        seeds=tuple(range(options.seeds)),
    )
    started = time.perf_counter()
    resolved = resolve_suite(suite, registry)
    between = time.perf_counter()
    plan = make_plan(resolved, registry, lambda spec: "f" * 64, "fp32")
    ended = time.perf_counter()
    assert len({cell.key for cell in plan.cells}) == 100 * options.seeds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = ended - started

    from _common import machine, print_table, verdict  # imports torch

    rows = [
        ("resolve, s", between - started, ""),
        ("plan, s", ended - between, ""),
        ("both, s", seconds, verdict(seconds, SECONDS)),
        ("peak of the process, MB", peak, verdict(peak, MEGABYTES)),
    ]
    print_table(
        f"{len(plan.cells):,} cells in {len(plan.stages):,} stages; {machine()}",
        ("", "", "target"),
        rows,
    )


if __name__ == "__main__":
    main()
