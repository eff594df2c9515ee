"""Check that the same command gives the same numbers, in two stores filled on one machine.

The script trains nothing. For every key that both stores hold, an artifact's files must have the
same sha256, and a record the same accuracies, losses, facts and artifact hashes. Dates, seconds and
memory may differ. The script exits with 1 if anything else does, or if the stores have no key in
common.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _common import print_table

from benchmark.storage.store import Store

NUMBERS = ("test_acc", "train_acc", "curve", "loss_curve", "artifacts", "facts")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("first", type=Path, help="the folder of results of one run")
    made.add_argument("second", type=Path, help="that of the other")
    return made


def main() -> int:
    """Print one row a kind of result; return the exit status."""
    args = parser().parse_args()
    first, second = (_results(Store(folder / "store")) for folder in (args.first, args.second))
    rows, differing = [], []
    for kind in ("poison", "purify", "record"):
        common = sorted(key for key in first.keys() & second.keys() if first[key][0] == kind)
        differ = [first[key][1] for key in common if first[key][2] != second[key][2]]
        rows.append((kind, len(common), len(common) - len(differ), len(differ)))
        differing += differ
    print_table(
        f"{args.first} against {args.second}", ("kind", "in both", "identical", "different"), rows
    )
    for label in differing:
        print(f"different: {label}")
    return 1 if differing or not any(row[1] for row in rows) else 0


def _results(store: Store) -> dict[str, tuple[str, str, Any]]:
    """Return key -> (kind, label, what must be equal)."""
    found: dict[str, tuple[str, str, Any]] = {}
    for path in store.root.glob("artifacts/*/*/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found[manifest["key"]] = (manifest["kind"], manifest["label"], manifest["files"])
    for record in store.records():
        label = f"{record.attack} + {record.defense}, seed {record.seed}"
        found[record.key] = ("record", label, {name: getattr(record, name) for name in NUMBERS})
    return found


if __name__ == "__main__":
    sys.exit(main())
