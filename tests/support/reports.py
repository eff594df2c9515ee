"""Records that the report's tests show, and a parser of the page they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.table import to_table
from benchmark.report.page import page as html
from benchmark.report.pictures import PictureKey
from benchmark.report.sections import sections
from benchmark.report.write import write_report
from benchmark.storage.record import Record
from support.made_up_records import plain

# the fact ``data`` of a record on images of ten classes
TEN = {"classes": 10, "test": 1000, "train_measured": 1000}
# as much of a file as the page reads
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100).to_bytes(4, "big") + (66).to_bytes(4, "big")


def record(attack: str, defense: str, acc: float | None, *, seed: int = 0, **values: Any) -> Record:
    own = {
        "seconds": {"purify": 5.0 if defense == "slow" else 0.0, "train": 10.0},
        "error": "FloatingPointError: the loss is nan\n  in epoch 3" if acc is None else "",
        "curve": () if acc is None else (acc / 2, acc),
        "environment": {"torch": "2.9.1", "threads": 1},
        "date": "2025-11-22T12:00:00+00:00",
    }
    return plain(attack, defense, acc, seed, values, **own)


def summarized(records: Iterable[Record], **options: Any) -> Summary:
    """Return the summary of the records' long table; ``options`` are those of ``to_table``."""
    return Summary(to_table(records, **options))


def rendered(made: Sequence[Record], pictures: Mapping[PictureKey, bytes] | None = None) -> str:
    """Return the leaderboard page of the records; a section's heat map is ``PNG``."""
    table = summarized(made)
    groups = sections(table)
    return html(table, groups, "t", {}, [{"heatmap": PNG} for _ in groups], pictures or {})


def is_rewritten(summary: Summary, folder: Path, title: str = "t", **options: Any) -> bool:
    """Write a report and say whether its page was written anew."""
    page = folder / "leaderboard.html"
    before = page.stat().st_ino if page.exists() else None
    write_report(summary, folder, title, **options)
    return page.stat().st_ino != before


def records() -> list[Record]:
    """Return two seeds; a failed cell, an absent cell, a privileged defense and a second victim."""
    accs: dict[str, tuple[float | None, ...]] = {
        "none": (0.9, 0.1, 0.3),
        "soft": (0.8, 0.6, 0.4),
        "slow": (0.85, 0.75, 0.65),
        "broken": (0.7, None, 0.5),
    }
    made = [
        record(attack, name, None if acc is None else acc + 0.02 * seed, seed=seed)
        for name, row in accs.items()
        for attack, acc in zip(("none", "em", "lsp[a=1]"), row, strict=True)
        for seed in (0, 1)
    ]
    made += [record("em", "partial", 0.9), record("none", "partial", 0.9)]
    made += [
        record(attack, "rich", 0.8, needs=("clean:500",)) for attack in ("none", "em", "lsp[a=1]")
    ]
    return [
        *made,
        record("em", "none", 0.1, victim="other"),
        record("em", "soft", 0.5, victim="other"),
    ]


def cell(attack: str, defense: str, *accs: float | None, **values: Any) -> list[Record]:
    """Return one record a seed; None stands for a failed one."""
    specs = {
        "attack_spec": {"name": attack, "params": {}},
        "defense_spec": {"name": defense, "params": {}},
    }
    return [
        record(attack, defense, acc, seed=seed, **(specs | values)) for seed, acc in enumerate(accs)
    ]


class Page(HTMLParser):
    """A parser that collects what tests ask of a page, and fails on a tag that closes another."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[int] = []
        self.sorts: list[str | None] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [
            given[name] or ""
            for name in ("src", "href", "srcset", "action", "data")
            if name in given
        ]
        if tag == "table":
            self.rows.append(0)
        if tag == "tr" and given.get("class") != "detail":  # which belongs to the row above it
            self.rows[-1] += 1
        if "aria-sort" in given:
            self.sorts.append(given["aria-sort"])
        if tag not in ("meta", "link", "img", "input", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
