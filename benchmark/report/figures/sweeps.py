"""Find the lines to draw over poison ratios and over the values of a defense's parameter."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmark.analysis.leaderboard import Summary
from benchmark.analysis.table import FAMILY, GROUP
from benchmark.report.figures.curves import Line, Panel
from benchmark.report.sections import levels

FEWEST_VALUES = 3  # of a swept parameter, since two make no curve


def by_ratio(
    summary: Summary,
) -> Iterator[tuple[str, list[Panel], set[str], dict[str, float]]]:
    """Yield the panels over poison ratios: (title, a panel an attack, undefended names, levels).

    There is one entry for each data set, victim, protocol and preset with several poison ratios.
    Ratio 0 is clean data.
    """
    for (dataset, victim, protocol, preset), cells in summary.cells.groupby([*FAMILY, "preset"]):
        attacked = cells[~cells["is_clean"]]
        clean = cells[cells["is_clean"]].drop_duplicates("defense")
        ratios = sorted(attacked["ratio"].unique())
        panels = []
        xs = [0.0, *ratios] if len(clean) else ratios
        for attack, part in attacked.groupby("attack"):
            part = part[part.groupby("defense")["mean"].transform("count") > 1]
            at: dict[tuple[str, float], Any] = {
                (name, ratio): row
                for rows in (clean.assign(ratio=0.0), part)
                for name, ratio, row in zip(
                    rows["defense"], rows["ratio"], rows.itertuples(), strict=True
                )
            }
            if lines := _lines(sorted(set(part["defense"])), xs, at):
                panels.append(Panel(str(attack), lines))
        if panels:
            named = f" · preset {preset}" if preset else ""
            title = f"{dataset} · {victim} · {protocol}{named}"
            anchors = set(cells.loc[cells["is_undefended"], "defense"])
            # chance and clean accuracy are the same at each ratio
            one = (dataset, victim, protocol, ratios[0], preset)
            yield title, panels, anchors, levels(clean, summary.chances[one])


def sweeps(summary: Summary) -> list[list[Panel]]:
    """Find the numeric parameters of a defense that vary alone, for each group in its order.

    Such a parameter has ``FEWEST_VALUES`` or more values while all others are equal. Each makes a
    panel, whose lines are attacks.
    """
    cells = dict(iter(summary.cells.groupby(GROUP)))
    panels: list[list[Panel]] = []
    for group, runs in summary.runs.groupby(GROUP):
        at = {(row.attack, row.defense): row for row in cells[group].itertuples()}
        clean = set(cells[group].loc[cells[group]["is_clean"], "attack"])
        attacks = sorted(set(cells[group]["attack"]), key=lambda name: (name not in clean, name))
        specs = dict(zip(runs["defense"], runs["defense_spec"], strict=True))
        panels.append([])
        for title, labels in _varied(specs):
            values = sorted(labels)
            by_value = {
                (attack, value): at[attack, labels[value]]
                for attack in attacks
                for value in values
                if (attack, labels[value]) in at
            }
            if lines := _lines(attacks, values, by_value):
                lines = [
                    replace(line, name="clean data") if line.name in clean else line
                    for line in lines
                ]
                panels[-1].append(
                    Panel(title, lines, log=values[0] > 0 and values[-1] / values[0] >= 8)
                )
    return panels


def _varied(specs: Mapping[str, str]) -> list[tuple[str, dict[float, str]]]:
    """Find each parameter in which alone three or more of the specs (label -> JSON) differ.

    Returns:
        For each, its title, such as ``dvae: width``, and value -> label.
    """
    families: dict[tuple[str, str], dict[float, str]] = {}
    for label, text in specs.items():
        spec = json.loads(text)
        params = spec.get("params", {})
        for name, value in params.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                fixed = {key: other for key, other in params.items() if key != name}
                others = json.dumps({**spec, "params": fixed}, sort_keys=True)
                families.setdefault((f"{spec['name']}: {name}", others), {})[float(value)] = label
    return sorted(
        (title, labels) for (title, _), labels in families.items() if len(labels) >= FEWEST_VALUES
    )


def _lines(
    names: Sequence[str], xs: Sequence[float], at: Mapping[tuple[str, float], Any]
) -> list[Line]:
    """A line for each name with two or more numbers; ``at`` holds rows of the grid."""
    lines = []
    for name in names:
        rows = [at.get((name, x)) for x in xs]
        mean = [math.nan if row is None else 100 * row.mean for row in rows]
        if sum(map(math.isfinite, mean)) > 1:
            lines.append(
                Line(name, xs, mean, [math.nan if row is None else 100 * row.std for row in rows])
            )
    return lines
