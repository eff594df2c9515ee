"""The verdict on a night: what was found, and how each cell stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from benchmark.analysis.cells import CellId


class Kind(StrEnum):
    """What can be found. ``suspect`` is a drop that no rerun has confirmed or refuted yet."""

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
    """One thing to tell. ``cell`` is None where it concerns all cells together."""

    kind: Kind
    cell: CellId | None
    message: str

    @property
    def matters(self) -> bool:
        """Does it make the night a bad one?"""
        return self.kind in MATTERS


@dataclass(frozen=True)
class Change:
    """How one cell stands against its accepted runs.

    Accuracies are shares in [0, 1]; NaN and 0 where there is nothing.

    ``lane`` is ``exact``, ``statistical``, ``untested`` where nothing is known of chance, or empty
    where there is nothing to compare. ``q`` is the p-value of the statistical lane, adjusted for
    the number of cells. ``seconds`` are those of one run tonight, the median over seeds;
    ``slowdown`` is their ratio to the accepted ones.
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

    It holds one change a cell, in order; the findings, the worst first; and remarks on the
    comparison as a whole.

    And remarks on the comparison as a whole.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def matters(self) -> bool:
        """Is there a finding that matters?"""
        return any(finding.matters for finding in self.findings)

    @property
    def suspects(self) -> frozenset[CellId]:
        """The cells to run again with other seeds.

        These are the suspects; or, if the night is suspect as a whole, all cells of the statistical
        lane.
        """
        named = [finding.cell for finding in self.findings if finding.kind is Kind.suspect]
        everything = (change.cell for change in self.changes if change.lane == "statistical")
        return frozenset(
            everything if None in named else (cell for cell in named if cell is not None)
        )
