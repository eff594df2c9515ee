"""Name the option at fault as the user wrote it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.catalogue.spec import format_value, parse_value

if TYPE_CHECKING:
    from benchmark.planning.suite import SuiteError

GIVEN = "the options given"  # the place of a problem that is not in a suite file


def check_no_path(texts: Sequence[str] | str, named: str, known: Collection[str]) -> None:
    """Refuse a bare path in place of a data set.

    Args:
        texts: specs of data sets.
        named: the user's name of the option, such as ``--dataset`` or ``datasets=``.
        known: names of all data sets.

    Raises:
        ValueError: with the spec that would read the folder.
    """
    place = named if named.endswith("=") else f"{named} "
    for text in [texts] if isinstance(texts, str) else texts:
        looks = re.search(r"[/\\]|^[.~]", text) or Path(text).is_dir()
        if looks and "[" not in text and text not in known:
            raise ValueError(
                f"{place}{text} is a path, expected the name of a data set; for a folder of "
                f'images write "folder[path={text}]"'
            )


def blamed(error: SuiteError, shown: Mapping[str, str], settings: Sequence[str]) -> SuiteError:
    """The same error, in which the problems of given options have the names that the user wrote.

    Args:
        error: an error of ``load_suite``.
        shown: axis -> the user's name of it, such as ``--dataset``.
        settings: ``key=value`` texts, as ``--set`` takes them.
    """
    from benchmark.planning.suite import SuiteError

    named: dict[str, bool] = {}  # problem -> whether an option is at fault
    for problem in error.problems:
        place, _, reason = problem.partition(": ")
        axis = place.partition("[")[0]
        setting = next((text for text in settings if _is_at_fault(text, place, reason)), None)
        if setting is not None:
            named[f"--set {setting}: {reason}"] = True
        elif axis in shown:
            named[f"{shown[axis]}: {reason}"] = True
        else:
            named[problem] = problem.startswith("--set")
    if all(named.values()):
        where = GIVEN
    else:
        where = f"{error.where} with {GIVEN}" if any(named.values()) else error.where
    return SuiteError(where, list(named))


def _is_at_fault(setting: str, place: str, reason: str) -> bool:
    """Whether a problem, at a place of the suite, is that of one ``--set``."""
    key, _, text = setting.partition("=")
    owner, dot, parameter = key.rpartition(".")
    if not dot:
        return place.partition("[")[0] == key
    if owner == "protocol":
        at_place = place.startswith(("protocols[", "protocol_values"))
    else:
        at_place = place.startswith(f"parameters.{owner}") or f' "{owner}' in f" {reason}"
    if place.startswith("parameters."):
        return at_place
    try:
        value = parse_value(text)
    except ValueError:
        return False
    values = {format_value(value), repr(value)}
    values |= {f"{value:g}"} if isinstance(value, float) else set()
    words = [f'"{parameter}"', *(f"{parameter}={shown}" for shown in values)]
    return at_place and any(word in reason for word in words)
