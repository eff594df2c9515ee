"""Compare a night's records with the accepted ones, and find what changed.

``compare`` decides, in two lanes. It returns a ``findings.Verdict``.

- Exact lane (``drift.py``): a run may have a *twin*, an accepted run of the same seed made on a CPU
  in the same environment. It must equal its twin to the last bit; anything else is ``drift``.
- Statistical lane (``statistics/shifts.py``): a cell with a run that has no twin is tested in
  three steps. First each cell by itself, with control of false discoveries over cells; then all
  cells together, for a drop that is small but common. Before a drop is called a regression, a rerun
  with other victim seeds must confirm it.

``cells.py`` sorts records into cells. The module is pure: it reads no files and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from benchmark.analysis.cells import (
    CellId,
    accuracies,
    by_cell,
    is_finished,
    numeric_environment,
)
from benchmark.analysis.drift import changed_settings, drift, percent, points, twin
from benchmark.analysis.findings import Change, Finding, Kind, Verdict
from benchmark.analysis.statistics.shifts import Shift, adjusted, common_shift, shift, spreads
from benchmark.storage.record import Record

FALSE_DISCOVERY_RATE = 0.05  # of the cells called suspect or improved
COMMON_LEVEL = 0.01  # two-sided, of the one test over all cells
CONFIRM_LEVEL = 0.01  # one-sided, of the rerun with other seeds
SLOWER = 1.5  # a ratio of seconds from which a cell counts as slower
OUTLIER = 4.0  # it must also be this many robust standard deviations from the median of all cells
MIN_SECONDS = 5.0  # of a run; start-up and chance decide how long shorter runs take


_Accuracies = Mapping[CellId, Mapping[tuple[int, int, int], float]]  # see accuracies


def compare(
    accepted: Sequence[Record],
    tonight: Sequence[Record],
    confirming: Sequence[Record] = (),
    last_night: str | None = None,
) -> Verdict:
    """Compare a night with the accepted records.

    Args:
        accepted: finished records of one night or several. Equal accuracies and curves of one seed
            are one draw and count once.
        tonight: a record for every run that was planned. Its status is ``ok``, ``failed``, or
            ``missing`` if it was not run.
        confirming: the rerun of the ``suspects`` that a call without it returned, with seeds that
            neither ``accepted`` nor ``tonight`` has. Cells without a finished rerun stay suspect.
        last_night: date of the newest run of the nights before; empty if there was none. Runs that
            are not newer, or that are accepted ones themselves, are ``stale``: nothing was
            computed since. With None, this is not checked.

    Raises:
        ValueError: if an accuracy is outside [0, 1].
    """
    planned = by_cell(tonight)
    old, new, again = (
        _finished(runs) for runs in (by_cell(accepted), planned, by_cell(confirming))
    )
    cells = sorted({*old, *planned})
    twins = {
        cell: [(run, twin(run, old[cell])) for run in runs]
        for cell, runs in new.items()
        if cell in old
    }
    tested = [cell for cell, pairs in twins.items() if any(twin is None for _, twin in pairs)]
    slowdowns = {
        cell: ratio for cell in twins if (ratio := _slowdown(new[cell], old[cell])) is not None
    }
    shifted, q = _shifted(
        *(
            {cell: accuracies(runs[cell]) for cell in tested if cell in runs}
            for runs in (old, new, again)
        )
    )

    findings = [
        finding for cell in cells for finding in _absences(cell, cell in old, planned.get(cell, []))
    ]
    findings += [
        Finding(Kind.drift, cell, text) for cell, pairs in twins.items() if (text := drift(pairs))
    ]
    findings += shifted + _timings(slowdowns)
    if tested and not q:
        advice = (
            "none has two runs, so that nothing is known of chance. Run more seeds, or "
            "accept more nights"
        )
        findings.append(
            Finding(Kind.untested, None, f"{len(tested)} of {len(cells)} cells: {advice}")
        )
    if last_night is not None and (text := _stale(old, new, last_night)):
        findings.append(Finding(Kind.stale, None, text))
    rank = list(Kind).index
    findings.sort(key=lambda item: (rank(item.kind), item.cell is not None, item.cell or ()))
    changes = tuple(
        Change(
            cell=cell,
            lane=_lane(cell in twins, cell in tested, bool(q)),
            before=fmean(accuracies(old[cell]).values()) if cell in old else math.nan,
            after=fmean(accuracies(new[cell]).values()) if cell in new else math.nan,
            n_before=len(accuracies(old.get(cell, []))),
            n_after=len(new.get(cell, [])),
            q=q.get(cell, math.nan),
            seconds=median(map(_seconds, new[cell])) if cell in new else math.nan,
            slowdown=slowdowns.get(cell, math.nan),
        )
        for cell in cells
    )
    return Verdict(changes, tuple(findings), tuple(_notes(old, planned, new, tested)))


# Decisions


def _lane(has_both: bool, is_tested: bool, spread_known: bool) -> str:
    """The ``lane`` of a cell, as ``Change`` lists them."""
    if not has_both:
        return ""
    if not is_tested:
        return "exact"
    return "statistical" if spread_known else "untested"


def _shifted(
    before: _Accuracies, after: _Accuracies, redone: _Accuracies
) -> tuple[list[Finding], dict[CellId, float]]:
    """Find the cells that moved beyond chance, and the adjusted p-value of each cell.

    Both results are empty if the spread of runs is not known. The rerun, ``redone``, only decides
    on the suspects; it counts neither for the spread nor for what is suspect.
    """
    spread = spreads(
        {cell: [list(part[cell].values()) for part in (before, after)] for cell in before}
    )
    if not spread:
        return [], {}
    shifts, reruns = (
        {
            cell: shift(list(runs.values()), list(before[cell].values()), spread[cell])
            for cell, runs in part.items()
        }
        for part in (after, redone)
    )
    q = adjusted({cell: moved.p for cell, moved in shifts.items()})
    findings = []
    for cell, moved in shifts.items():
        if q[cell] <= FALSE_DISCOVERY_RATE:
            level = fmean(before[cell].values())
            text = f"{percent(level)} to {percent(level + moved.difference)}, q = {q[cell]:.2g}"
            findings.append(_judge(cell, moved, text, reruns.get(cell)))
    common = common_shift(after, before, spread)
    if common is not None and common.p <= COMMON_LEVEL:
        text = f"all {len(before)} cells together, p = {common.p:.2g}"
        findings.append(_judge(None, common, text, common_shift(redone, before, spread)))
    return findings, q


def _judge(cell: CellId | None, moved: Shift, text: str, again: Shift | None) -> Finding:
    """Decide whether a difference beyond chance is an improvement, suspect, or a regression.

    For a drop, the rerun ``again`` decides alone: the first runs were selected because they are
    low, so that they prove less than they seem to.
    """
    message = f"{points(moved.difference)} ({text})"
    if moved.difference > 0:
        return Finding(Kind.improvement, cell, message)
    if again is None:
        return Finding(Kind.suspect, cell, message)
    kind = Kind.regression if again.p_of_drop <= CONFIRM_LEVEL else Kind.not_confirmed
    return Finding(
        kind,
        cell,
        f"{message}; with other seeds {points(again.difference)} (p = {again.p_of_drop:.2g})",
    )


def _absences(cell: CellId, is_accepted: bool, planned: Sequence[Record]) -> list[Finding]:
    """The findings on what a cell lacks: runs, results, or accepted runs."""
    done = [run for run in planned if is_finished(run)]
    absent = [run for run in planned if run.status == "missing"]
    failed = [run for run in planned if run not in done and run not in absent]
    findings = []
    if not planned:
        findings.append(Finding(Kind.missing, cell, "accepted, but no longer planned"))
    if absent:
        findings.append(
            Finding(Kind.missing, cell, f"{len(absent)} of {len(planned)} runs are not there")
        )
    if failed:
        reason = " ".join(failed[0].error.split()) or "no reason recorded"
        findings.append(
            Finding(Kind.failed, cell, f"{len(failed)} of {len(planned)} runs failed: {reason}")
        )
    if done and not is_accepted:
        findings.append(Finding(Kind.new, cell, "no accepted run to compare with"))
    return findings


def _timings(slowdowns: Mapping[CellId, float]) -> list[Finding]:
    """Find cells that took clearly longer or shorter than accepted, and a change of all together.

    Wall times are noisy, so the bar is high. The change of all cells together is the median of the
    ratios. A cell is reported if its ratio departs from that median by the factor ``SLOWER`` and by
    ``OUTLIER`` robust standard deviations of the logarithms (1.4826 times the median absolute
    deviation; Hampel, 1974).
    """
    logs = {cell: math.log(ratio) for cell, ratio in slowdowns.items()}
    if not logs:
        return []
    middle = median(logs.values())
    bar = max(math.log(SLOWER), OUTLIER * 1.4826 * median(abs(x - middle) for x in logs.values()))
    text = "{:.2f} times the accepted seconds".format
    pace = {True: Kind.slower, False: Kind.faster}
    findings = [
        Finding(pace[x > middle], cell, text(math.exp(x)))
        for cell, x in logs.items()
        if abs(x - middle) > bar
    ]
    if abs(middle) > math.log(SLOWER):
        message = (
            f"{text(math.exp(middle))}, the median over {len(logs)} cells; the machine or the code"
        )
        findings.append(Finding(pace[middle > 0], None, message))
    return findings


def _stale(
    old: Mapping[CellId, Sequence[Record]], new: Mapping[CellId, Sequence[Record]], last_night: str
) -> str:
    """Say how many of tonight's runs are older than tonight; empty if all are new."""
    made = {(run.key, run.date) for runs in old.values() for run in runs}
    after = [run for runs in new.values() for run in runs]
    known = sum(run.date <= last_night or (run.key, run.date) in made for run in after)
    if not known:
        return ""
    advice = (
        "Run the suite with --policy force, or into an empty folder of results; --again "
        "looks at the last night once more"
    )
    return (
        f"{known} of {len(after)} runs are those of the last night or the accepted ones: "
        f"nothing was computed since. {advice}"
    )


def _notes(
    old: Mapping[CellId, Sequence[Record]],
    planned: Mapping[CellId, Sequence[Record]],
    new: Mapping[CellId, Sequence[Record]],
    tested: Sequence[CellId],
) -> list[str]:
    """What a reader must know before reading the findings, a sentence each."""
    before, after = ([run for runs in part.values() for run in runs] for part in (old, new))
    notes = []
    left = {
        cell: {run.seed for run in old[cell]} - {run.seed for run in runs}
        for cell, runs in planned.items()
        if cell in old
    }
    if seeds := sorted(set().union(*left.values())):
        notes.append(
            f"seeds {', '.join(map(str, seeds))} of {sum(map(bool, left.values()))} cells were "
            "accepted and are not planned"
        )
    names = sorted({name for run in after for name in numeric_environment(run)})
    for name, label in (("git", "code"), *((name, name) for name in names)):
        ours, theirs = (
            sorted({str(run.environment.get(name, "unknown")) for run in runs})
            for runs in (after, before)
        )
        if before and not set(ours) <= set(theirs):
            notes.append(f"{label}: {', '.join(ours)}; accepted: {', '.join(theirs)}")
    own_tonight, own_accepted = (
        _own_images(run for cell in tested for run in part[cell]) for part in (new, old)
    )
    if own_tonight != own_accepted:
        notes.append(
            "setting craft_seed: either tonight's or the accepted seeds have poisons of their "
            "own, which may move numbers and spreads"
        )
    settings = [text for cell in tested for text in changed_settings(new[cell][-1], old[cell][-1])]
    notes += [
        f"setting {text} ({settings.count(text)} cells), which may move numbers"
        for text in dict.fromkeys(settings)
    ]
    return notes


# Records


def _finished(cells: Mapping[CellId, Sequence[Record]]) -> dict[CellId, list[Record]]:
    return {
        cell: done
        for cell, runs in cells.items()
        if (done := [run for run in runs if is_finished(run)])
    }


def _seconds(run: Record) -> float:
    return math.fsum(run.seconds.values())


def _slowdown(new: Sequence[Record], old: Sequence[Record]) -> float | None:
    """The ratio of tonight's seconds to the accepted ones: medians over seeds, on the same device.

    None without accepted runs on that device, or where the runs are shorter than ``MIN_SECONDS``.
    """

    def where(run: Record) -> tuple[object, object]:
        return run.environment.get("device"), run.environment.get("threads")

    before = [_seconds(run) for run in old if where(run) == where(new[0])]
    if not before:
        return None
    was, is_ = median(before), median(map(_seconds, new))
    return is_ / was if min(was, is_) > 0 and max(was, is_) >= MIN_SECONDS else None


def _own_images(runs: Iterable[Record]) -> bool:
    """Whether the runs have several craft seeds, as with ``craft_seed: seed``."""
    return len({run.craft_seed for run in runs}) > 1
