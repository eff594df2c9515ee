"""Measure how often ``compare`` would show a difference where there is none.

The script draws experiments with equal defenses and trains nothing. Differences are normal, of
variance 1, and those of one victim seed are correlated, as attacks that share weights and batches
may be. A difference counts as shown if every sign-flip test that can be decided has p < 0.05, as in
``Comparison.conclusion``. Whether it is then called better or, with few seeds, only ahead, does not
matter to this table.
"""

from __future__ import annotations

import argparse

import numpy as np
from _common import print_table

from benchmark.analysis.comparison import ALPHA
from benchmark.analysis.statistics.paired import sign_flip

DESIGNS = ((1, 12), (2, 6), (3, 4), (5, 4), (6, 4), (8, 4))  # seeds, attacks
CORRELATIONS = (0.0, 0.2, 0.5)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--experiments", type=int, default=2000, help="drawn for each number")
    return made


def main() -> None:
    """Print one row a design, in % of the experiments."""
    count = parser().parse_args().experiments
    rng = np.random.default_rng(0)
    rows = []
    for seeds, attacks in DESIGNS:
        rates = []
        for correlation in CORRELATIONS:
            common, own = (
                rng.standard_normal((count, seeds, 1)),
                rng.standard_normal((count, seeds, attacks)),
            )
            drawn = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
            rates.append(f"{100 * sum(map(_shown, drawn)) / count:.0f}")
        rows.append((f"{seeds}", f"{attacks}", *rates))
    print_table(
        f"'shown' in % of {count:,} experiments without a difference",
        ["seeds", "attacks", *map(str, CORRELATIONS)],
        rows,
    )


def _shown(differences: np.ndarray) -> bool:
    """Say whether the differences of one experiment, (seeds, attacks), count as shown."""
    tests = (sign_flip(differences.ravel().tolist()), sign_flip(differences.sum(1).tolist()))
    return all(test.p < ALPHA for test in tests if test.decidable)


if __name__ == "__main__":
    main()
