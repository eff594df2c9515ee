"""Choose the records and the sources whose orders are compared.

``find_counterparts`` then pairs their cells and measures the agreement. The module is pure: it
reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmark.analysis.counterparts import Cards, Counterparts, find_counterparts
from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.naming import as_json, parts_of
from benchmark.analysis.published import Published
from benchmark.catalogue.spec import ANCHOR
from benchmark.storage.record import Record


def compared_records(suite: Sequence[Record], stored: Iterable[Record] = ()) -> list[Record]:
    """The finished records of attacked and defended victims, those of a suite and similar ones.

    Clean data and undefended victims take no part: nearly every defense is ahead of the undefended
    victim in every table, which would flatter the agreement.

    Args:
        suite: records of the suite, under its labels.
        stored: other records. Those whose data set, victim, protocol, precision, poison ratio and
            defense are those of a record of the suite are added, whatever their attack.

    Returns:
        The records. Where an attack has records of several versions, those of its newest.
    """
    known = {_setting(record): record.dataset for record in suite}
    keys = {record.key for record in suite}
    similar = (
        replace(record, dataset=known[setting])
        for record in stored
        if record.key not in keys and (setting := _setting(record)) in known
    )
    records = [record for record in (*suite, *similar) if _takes_part(record)]
    newest: dict[str, tuple[int, ...]] = {}
    for record in records:
        attack, version = _attack(record.attack_spec)
        newest[attack] = max(version, newest.get(attack, version))
    return [
        record
        for record in records
        for attack, version in [_attack(record.attack_spec)]
        if version == newest[attack]
    ]


def agreements(
    summary: Summary,
    published: Sequence[Published],
    wanted: Sequence[str] = (),
    cards: Cards | None = None,
) -> list[Counterparts]:
    """The counterparts of each wanted source, in this order.

    Args:
        summary: summary of the long table of ``compared_records``.
        published: what ``load_published`` returns.
        wanted: sources as ``find_counterparts`` takes them. Without any, all sources are taken
            that share at least two cells with ours.
        cards: as in ``find_counterparts``.

    Raises:
        ValueError: if a wanted source has no cell of ours, or no source has two.
    """
    if wanted:
        return [
            group
            for source in dict.fromkeys(wanted)
            for group in find_counterparts(summary, published, source, cards)
        ]
    found: list[Counterparts] = []
    for source in dict.fromkeys(row.source for row in published):
        try:
            groups = find_counterparts(summary, published, source, cards)
        except ValueError:  # the source has nothing of ours
            continue
        found += [group for group in groups if group.cells.pairs]
    if not found:
        datasets = ", ".join(dict.fromkeys(summary.table["dataset"].tolist())) or "no data set"
        raise ValueError(
            f"no published source shares two cells of attack and defense with the results on "
            f"{datasets}; if these images are those of a paper's data set under another name, "
            "name both, as in --published bridgepure2025[dataset=cifar10]"
        )
    return found


def _setting(record: Record) -> str:
    """All of a record's cell but the attack and the seeds."""
    specs = (record.dataset_spec, record.defense_spec, record.protocol_spec)
    return as_json(
        {
            "specs": [dict(spec) for spec in specs],
            "rest": [record.victim, record.ratio, record.precision],
        }
    )


def _takes_part(record: Record) -> bool:
    names = {spec.get("name") for spec in (record.attack_spec, record.defense_spec)}
    return record.status == "ok" and ANCHOR not in names


def _attack(spec: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """A recorded attack without its versions, and the versions of it and of those chained to it."""
    parts = [dict(part) for part in parts_of(spec)]
    versions = tuple(int(part.pop("version", 0)) for part in parts)
    for part in parts:
        part.pop("then", None)
    return as_json({"parts": parts}), versions
