"""Find the line of a method's own file at which it crashed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import NamedTemporaryFile
from traceback import FrameSummary

from benchmark.catalogue.registry import FOLDERS, ROOT


def crash_line(error: BaseException, plugins: Iterable[Path]) -> str:
    """Return the line that ``error`` came from, such as ``mydefense.py:12: return x / 0``.

    It is the line of the last frame in a file of a method: of a plugin, or of the project's own
    attacks, defenses, data sets and victims. If there is no such frame, it is the line of the last
    frame of all. It is empty if the project's own code raised the error on purpose, since the
    message then says what is wrong.
    """
    if own := own_crash_line(error, plugins):
        return own
    frames = list(_frames(error))
    if not frames:
        return ""
    on_purpose = _line(frames[-1]).startswith("raise ") and _is_ours(frames[-1])
    return "" if on_purpose else _shown(frames[-1])


def own_crash_line(error: BaseException, plugins: Iterable[Path]) -> str:
    """Return the same as ``crash_line``, but empty if no frame is in a file of a method."""
    files = {file.resolve() for file in plugins} | set(_installed_files())
    folders = set(FOLDERS.values())
    own = ""
    for frame in _frames(error):
        file = Path(frame.filename)
        if file.resolve() in files or file.parent in folders:
            own = _shown(frame)
    return own


def saved_text(text: str, name: str) -> Path:
    """Write tracebacks to a new temporary file, ``uebench-<name>-*.txt``."""
    with NamedTemporaryFile(
        "w", encoding="utf-8", prefix=f"uebench-{name}-", suffix=".txt", delete=False
    ) as file:
        file.write(text)
    return Path(file.name)


def _frames(error: BaseException) -> Iterator[FrameSummary]:
    """Yield the frames of an error, then those of the error that caused it, and so on.

    The innermost frame of all comes last.
    """
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    for one in seen:
        yield from traceback.extract_tb(one.__traceback__)


def _installed_files() -> Iterator[Path]:
    """Yield the imported files of methods that other packages installed."""
    for kind in FOLDERS:
        for entry in entry_points(group=f"uebench.{kind}s"):
            module = sys.modules.get(entry.value.partition(":")[0])
            if file := getattr(module, "__file__", None):
                yield Path(file).resolve()


def _is_ours(frame: FrameSummary) -> bool:
    return Path(frame.filename).is_relative_to(ROOT / "benchmark")


def _line(frame: FrameSummary) -> str:
    return (frame.line or "").strip()


def _shown(frame: FrameSummary) -> str:
    file = Path(frame.filename)
    near = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{near}:{frame.lineno}: {_line(frame)}".removesuffix(": ")
