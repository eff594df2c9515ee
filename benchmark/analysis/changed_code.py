"""Name the files in which the code behind two records differs. Pure: records list the sha256 of each."""

from __future__ import annotations

from pathlib import PurePosixPath

from benchmark.storage.record import Record


def changed_files(before: Record, after: Record) -> list[str]:
    """The files of ``after`` that are not those of ``before``, and the files that are gone.

    A file that only moved is not changed; one that moved and changed has its new name. Records
    without ``identity`` are older and do not list what their methods import, so that beside one of
    them a file that only the newer record lists says nothing.
    """
    old, new = dict(before.sources), dict(after.sources)
    for name in sorted(new.keys() - old.keys()):
        if moved := _place_before(name, new[name], {x: old[x] for x in old.keys() - new.keys()}):
            old[name] = old.pop(moved)
    names = {*old, *new}
    if bool(before.identity) != bool(after.identity):
        names = {*old} if after.identity else {*new}
    return sorted(name for name in names if old.get(name) != new.get(name))


def _place_before(name: str, sha256: str, gone: dict[str, str]) -> str | None:
    """The file among those ``gone`` that ``name`` was: one of this content, or of its last name."""
    same = [other for other in sorted(gone) if gone[other] == sha256]
    last = PurePosixPath(name).name
    alike = [other for other in sorted(gone) if PurePosixPath(other).name == last]
    return next(iter([*same, *alike]), None)
