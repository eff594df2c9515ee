"""The line of a method's own file at which it crashed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from traceback import FrameSummary

from benchmark.catalogue.registry import FOLDERS, ROOT


def crash_line(error: BaseException, plugins: Iterable[Path]) -> str:
    """Where ``error`` came from, such as ``mydefense.py:12: return x / 0``.

    That is the last frame in a file of a method: of a plugin, or of the project's own attacks, defenses, data sets and
    victims. If there is none, it is the last frame of all. Empty if the project's own code raised the error on purpose,
    since the message then says what is wrong.
    """
    if own := own_crash_line(error, plugins):
        return own
    frames = list(_frames(error))
    if not frames:
        return ""
    on_purpose = _line(frames[-1]).startswith("raise ") and _is_ours(frames[-1])
    return "" if on_purpose else _shown(frames[-1])


def own_crash_line(error: BaseException, plugins: Iterable[Path]) -> str:
    """As ``crash_line``, but empty if no frame is in a file of a method."""
    files = {str(file.resolve()) for file in plugins} | set(_installed_files())
    folders = set(FOLDERS.values())
    own = [
        frame
        for frame in _frames(error)
        if str(Path(frame.filename).resolve()) in files or Path(frame.filename).parent in folders
    ]
    return _shown(own[-1]) if own else ""


def _frames(error: BaseException) -> Iterator[FrameSummary]:
    """The frames of an error after those of the error that it was raised from: the innermost of all comes last."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    for one in seen:
        yield from traceback.extract_tb(one.__traceback__)


def _installed_files() -> Iterator[str]:
    """The files of the methods that other packages installed and that have been imported."""
    for kind in FOLDERS:
        for entry in entry_points(group=f"uebench.{kind}s"):
            module = sys.modules.get(entry.value.partition(":")[0])
            if file := getattr(module, "__file__", None):
                yield str(Path(file).resolve())


def _is_ours(frame: FrameSummary) -> bool:
    return Path(frame.filename).is_relative_to(ROOT / "benchmark")


def _line(frame: FrameSummary) -> str:
    return (frame.line or "").strip()


def _shown(frame: FrameSummary) -> str:
    file = Path(frame.filename)
    near = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{near}:{frame.lineno}: {_line(frame)}".removesuffix(": ")
