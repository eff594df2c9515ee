"""Name the files in which the code behind two records differs.

The module reads no files, since records list the sha256 of each file.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from benchmark.storage.record import Record


def changed_files(before: Record, after: Record) -> list[str]:
    """The files that are new, changed or gone in ``after``, compared with ``before``.

    A file that only moved is not changed; one that moved and changed has its new name. Records
    without ``identity`` are older and do not list what their methods import. Against such a record,
    a file that only the newer record lists is ignored.
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
    """The file among those ``gone`` that is now called ``name``, or None.

    It has the same content or, failing that, the same file name in another folder.
    """
    same = [other for other in sorted(gone) if gone[other] == sha256]
    last = PurePosixPath(name).name
    alike = [other for other in sorted(gone) if PurePosixPath(other).name == last]
    return next(iter([*same, *alike]), None)
