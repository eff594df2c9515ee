"""Records with hostile names for the leaderboard page, and readers of the page in a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmark.storage.record import Record
from support.reports import record, records

HOSTILE = """<img src=x onerror="window.hacked=1"> '"&\\ ${1} {{ 1 }}"""
LONG = "w" * 150


def hostile_records() -> list[Record]:
    """Return records of two data sets and two victims, with seeds, privileges and hostile names.

    One cell failed and one is absent. The records hold every setting.
    """
    odd = [
        record(attack, name, 0.3, dataset=HOSTILE, victim="other")
        for attack in ("none", HOSTILE, LONG)
        for name in ("none", HOSTILE, LONG, "</script><b>")
    ]
    return [
        replace(
            item,
            dataset_spec={"name": item.dataset, "fingerprint": "f"},
            dataset_params={"size": 8},
            attack_spec={"name": item.attack, "params": {"eps": 0.5}},
            defense_spec={"name": item.defense, "params": {"quality": 10}},
        )
        for item in [*records(), *odd]
    ]


def toy(page: Any) -> Any:
    """Return the section of the data set toy and the victim net.

    The sections before and after it have other data sets or victims.
    """
    return page.locator("section.group").nth(1)


def ranking(page: Any) -> Any:
    return toy(page).locator("table.ranking").first


def column(page: Any, kind: str) -> list[str]:
    """Return the visible texts of one column of the ranking."""
    return [
        text.strip()
        for text in ranking(page)
        .locator(f"tbody > tr:not(.detail) > .{kind}:visible")
        .all_inner_texts()
    ]


def names(page: Any) -> list[str]:
    return [text.split()[0] for text in column(page, "name")]


def overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
