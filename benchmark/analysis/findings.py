"""The types of a night's verdict, which ``regression.compare`` returns.

``Verdict`` holds a ``Change`` for each cell and the list of ``Finding``; ``Kind`` lists the kinds
of findings, and ``MATTERS`` those that make a night a bad one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from benchmark.analysis.cells import CellId


class Kind(StrEnum):
    """The kinds of findings, the worst first.

    ``suspect`` is a drop that no rerun has confirmed or refuted yet.
    """

    drift = "drift"
    regression = "regression"
    suspect = "suspect"
    missing = "missing"
    failed = "failed"
    stale = "stale"
    untested = "untested"
    not_confirmed = "not confirmed"
    improvement = "improvement"
    new = "new"
    slower = "slower"
    faster = "faster"


MATTERS = (
    Kind.drift,
    Kind.regression,
    Kind.suspect,
    Kind.missing,
    Kind.failed,
    Kind.stale,
    Kind.untested,
)


@dataclass(frozen=True)
class Finding:
    """One result of the comparison. ``cell`` is None if it concerns all cells together."""

    kind: Kind
    cell: CellId | None
    message: str

    @property
    def matters(self) -> bool:
        """Whether the finding makes the night a bad one."""
        return self.kind in MATTERS


@dataclass(frozen=True)
class Change:
    """How one cell compares with its accepted runs.

    Attributes:
        lane: ``exact``, ``statistical``, ``untested`` where the spread of runs is not known, or
            empty where there is nothing to compare.
        before, after: mean accuracy of the accepted and of tonight's runs, in [0, 1]; NaN without
            a run.
        n_before, n_after: number of accepted and of tonight's runs.
        q: p-value of the statistical lane, adjusted for the number of cells; NaN in other lanes.
        seconds: wall seconds of one run tonight, the median over seeds; NaN without a run.
        slowdown: ratio of ``seconds`` to those of the accepted runs; NaN where not known.
    """

    cell: CellId
    lane: str
    before: float
    after: float
    n_before: int
    n_after: int
    q: float
    seconds: float
    slowdown: float


@dataclass(frozen=True)
class Verdict:
    """The verdict on one night.

    Attributes:
        changes: one for each cell, in order of cells.
        findings: the worst first.
        notes: remarks on the comparison as a whole.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def matters(self) -> bool:
        """Whether any finding makes the night a bad one."""
        return any(finding.matters for finding in self.findings)

    @property
    def suspects(self) -> frozenset[CellId]:
        """The cells to run again with other seeds.

        If the night is suspect as a whole, these are all cells of the statistical lane; else they
        are the suspect cells.
        """
        named = [finding.cell for finding in self.findings if finding.kind is Kind.suspect]
        everything = (change.cell for change in self.changes if change.lane == "statistical")
        return frozenset(
            everything if None in named else (cell for cell in named if cell is not None)
        )
