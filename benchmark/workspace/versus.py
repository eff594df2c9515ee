"""Plan the comparison of a defense with a reference, and name the folder of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.catalogue.spec import ANCHOR, Spec
from benchmark.keys import digest

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.comparison import Comparison
    from benchmark.planning.plan import Plan
    from benchmark.planning.suite import ResolvedSuite
    from benchmark.workspace.workspace import Workspace


@dataclass(frozen=True)
class Versus:
    """Two defenses on the attacks of a suite.

    Attributes:
        ours, against: specs of the two defenses.
        plan: the cells of both, of undefended victims and of clean data.
        folder: the folder of the comparison's files and event log.
    """

    ours: str
    against: str
    plan: Plan
    folder: Path

    def comparisons(self, table: pd.DataFrame) -> list[Comparison]:
        """One comparison a data set, victim, protocol, ratio and preset of the long table."""
        from benchmark.analysis.comparison import comparisons

        return comparisons(table, self.ours, self.against)


def versus(
    workspace: Workspace,
    ours: str,
    against: str,
    suite: str | Mapping[str, Any],
    axes: Mapping[str, Any],
    settings: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> Versus:
    """Plan the comparison of two defenses.

    Args:
        workspace: the workspace to plan in.
        ours, against: specs of the two defenses.
        suite, axes, settings, named: as in ``Workspace.suite``.

    Raises:
        ValueError: if the two are the same defense, or as ``Workspace.suite`` and ``plan`` do.
    """
    ours, against = ours.strip(), against.strip()
    named = {"defenses": "the defenses compared", **(named or {})}
    reduced = _reduced(workspace, ours, against, suite, axes, settings, named)
    plan = workspace.plan(reduced)
    folder = workspace.folder(plan.suite.name) / folder_name(ours, against, axes, settings)
    return Versus(ours, against, plan, folder)


def _reduced(
    workspace: Workspace,
    ours: str,
    against: str,
    suite: str | Mapping[str, Any],
    axes: Mapping[str, Any],
    settings: Sequence[str],
    named: Mapping[str, str],
) -> ResolvedSuite:
    """The suite with these two defenses, the undefended victims and the clean data."""
    defenses = list(dict.fromkeys((ANCHOR, ours, against)))
    checked = workspace.suite(suite, {**axes, "defenses": defenses}, settings, named)
    if [str(spec) for spec in checked.defenses] != defenses:
        raise ValueError(
            "--set defenses=...: compare takes the two defenses that it is given, and no "
            "others; leave it out"
        )
    resolved = {str(spec): spec for spec in checked.defenses}
    first, second = resolved[ours], resolved[against]
    if (first.name, first.params) == (second.name, second.params):
        raise ValueError(
            f'"{ours}" and "{against}" are one defense with the same parameters; '
            "name two that differ"
        )
    if any(attack.name == ANCHOR for attack in checked.attacks):
        return checked
    clean = workspace.registry.resolve("attack", Spec(ANCHOR))
    return replace(checked, attacks=(clean, *checked.attacks))


def folder_name(
    ours: str, against: str, axes: Mapping[str, object], settings: Sequence[str]
) -> str:
    """The name of a comparison's folder: both defenses, and the options beside the suite.

    Options that mean the same, such as ``--seeds 0-2`` and ``--seeds 2,1,0``, give the same name.
    If a setting is given twice, the last value counts, as in the run.
    """
    options = []
    for name, values in axes.items():
        texts = [str(values)]
        if isinstance(values, list):
            texts = sorted({str(value) for value in values})
        options.append(f"{name}={','.join(texts)}")
    pairs = (text.partition("=") for text in settings)
    last = {name.strip(): value.strip() for name, _, value in pairs}
    options += sorted(f"{name}={value}" for name, value in last.items())
    parts = ["compare", _file_name(ours), "vs", _file_name(against)]
    return "-".join([*parts, *([_file_name(" ".join(options))] if options else [])])


def _file_name(spec: str) -> str:
    """A spec as part of a folder's name; if characters had to change, a digest is appended."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip("-")[:60]
    return plain if plain == spec else f"{plain}-{digest(spec)[:6]}"
