"""Time loading and reporting 10,000 synthetic records, from the store to the figures.

    python perf/report_scale.py [--records 10000] [--figures]

The script times the store, the table, the leaderboard, the tables of a paper, the page and the
figures. The records have 20 attacks, 25 defenses and 5 seeds for each of several victims, with
curves of 20 epochs. A report of so many cells draws an overview. ``--figures`` also draws all of
them, as ``report --figures`` does, which takes minutes and has no target.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TARGET = 10.0  # seconds, with the figures of a report without --figures
ATTACKS, DEFENSES, SEEDS, EPOCHS = 20, 25, 5, 20

T = TypeVar("T")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--records", type=int, default=10_000)
    options.add_argument("--figures", action="store_true", help="draw every cell too")
    return options


def fill(root: Path, count: int) -> None:
    """Write ``count`` records where a store has them, without syncing each."""
    from benchmark.storage.record import Record

    rng = random.Random(0)
    grid = list(itertools.product(range(ATTACKS), range(DEFENSES), range(SEEDS)))
    cells = ((victim, *cell) for victim in itertools.count() for cell in grid)
    for victim, attack, defense, seed in itertools.islice(cells, count):
        names = [
            "none" if index == 0 else f"{kind}{index}"
            for kind, index in (("attack", attack), ("defense", defense))
        ]
        acc = min(1.0, max(0.0, rng.gauss(0.3 + 0.02 * defense - 0.01 * attack, 0.05)))
        record = Record(
            key=hashlib.sha256(f"{victim} {attack} {defense} {seed}".encode()).hexdigest(),
            dataset="cifar10",
            attack=names[0],
            defense=names[1],
            victim=f"victim{victim}",
            protocol="lite",
            seed=seed,
            dataset_spec={"name": "cifar10", "fingerprint": "0" * 64},
            attack_spec={"name": names[0], "version": 1, "params": {"eps": 8 / 255, "steps": 20}},
            defense_spec={"name": names[1], "version": 1, "params": {"width": 64, "epochs": 60}},
            protocol_spec={"epochs": EPOCHS, "batch_size": 64},
            test_acc=acc,
            train_acc=0.9,
            curve=tuple(acc * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)),
            loss_curve=tuple(2.0 / epoch for epoch in range(1, EPOCHS + 1)),
            seconds={"poison": 10.0, "purify": 5.0, "train": 60.0},
            facts={"poison": {"linf": 8 / 255}, "purify": {"kept": 1.0}, "train": {}},
            environment={"device": "none", "torch": "0", "threads": 1},
            date="2026-01-01T00:00:00Z",
        )
        file = root / "records" / record.key[:2] / f"{record.key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record.to_json(), indent=1, sort_keys=True))


def measure(root: Path, figures: bool) -> list[tuple[str, float]]:
    """Return (step, wall seconds), in the order in which ``report --all`` takes them."""
    from benchmark.analysis.leaderboard import Summary
    from benchmark.analysis.table import to_table
    from benchmark.report import markdown_report as text
    from benchmark.report import page, tables, typeset
    from benchmark.report.figures import curves, draw, heatmap
    from benchmark.report.sections import sections
    from benchmark.storage.store import Store

    rows: list[tuple[str, float]] = []

    def timed(name: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        rows.append((name, time.perf_counter() - start))
        return result

    records = timed("reading the records", lambda: list(Store(root).records()))
    table = timed("the long table", lambda: to_table(records))
    summary = Summary(table)
    groups = timed("sections and leaderboard", lambda: sections(summary))
    timed(
        "Markdown and CSV",
        lambda: (
            text.report_markdown(summary, groups, "t", {}),
            text.leaderboard_csv(summary),
            text.cells_csv(summary),
        ),
    )
    made = timed("papers' tables", lambda: tables.paper_tables(summary, {}))
    timed(
        "LaTeX, Markdown, CSV of them",
        lambda: [form(one) for one in made for form in typeset.FORMS.values()],
    )
    # about as many bytes as pictures of this size have
    pictures = [{"heatmap": bytes(200_000), "curves": bytes(500_000)} for _ in groups]
    timed("HTML page", lambda: page.page(summary, groups, "t", {}, pictures, {}))
    cells = sum(len(section.rows) * len(section.columns) for section in groups)
    timed("overview figures", lambda: draw.overview(cells, groups))
    if figures:
        timed("heat maps", lambda: [heatmap.heatmap(section) for section in groups])
        timed("curves", lambda: [curves.curves(section) for section in groups])
        timed("further figures", lambda: draw.figures(summary, groups))
    return rows


def main() -> None:
    from _common import machine, print_table, verdict

    options = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="uebench-perf-") as folder:
        fill(Path(folder), options.records)
        rows = measure(Path(folder), options.figures)
    drawn = ("heat maps", "curves", "further figures")
    total = sum(took for name, took in rows if name not in drawn)
    shown: list[tuple[object, ...]] = [(name, took, "") for name, took in rows]
    shown.append(("all that a report does", total, verdict(total, TARGET)))
    print_table(f"seconds for {options.records} records; {machine()}", ("", "seconds", ""), shown)


if __name__ == "__main__":
    main()
