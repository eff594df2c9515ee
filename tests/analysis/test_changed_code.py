"""The files that changed between two records, also where files moved and lists became longer."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.analysis.changed_code import changed_files
from benchmark.storage.record import Record


def record(sources: dict[str, str], whole: bool) -> Record:
    values: dict[str, Any] = {"identity": {"stage": "train"}} if whole else {}
    return Record(
        key="k",
        dataset="d",
        attack="a",
        defense="b",
        victim="v",
        protocol="p",
        sources=sources,
        **values,
    )


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"a.py": "1", "b.py": "1"}, {"a.py": "1", "b.py": "1"}, []),
        ({"a.py": "1", "b.py": "1"}, {"a.py": "2", "b.py": "1"}, ["a.py"]),
        ({"a.py": "1"}, {"a.py": "1", "new.py": "2"}, ["new.py"]),
        ({"a.py": "1", "gone.py": "2"}, {"a.py": "1"}, ["gone.py"]),
        ({"x/train.py": "1"}, {"x/y/train.py": "1"}, []),
        ({"x/train.py": "1"}, {"x/y/train.py": "2"}, ["x/y/train.py"]),
        ({"x/resume.py": "1"}, {"x/y/checkpoint.py": "1"}, []),
        (
            {"attacks/none.py": "1", "p/none.py": "2"},
            {"attacks/none.py": "1", "q/none.py": "2"},
            [],
        ),
        ({"x/a.py": "1", "y/a.py": "2"}, {"p/a.py": "2", "q/a.py": "1"}, []),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_files_that_changed(
    before: dict[str, str], after: dict[str, str], changed: list[str], whole: bool
) -> None:
    assert changed_files(record(before, whole), record(after, whole)) == changed


def test_an_older_record_lists_no_imports() -> None:
    old = {"attacks/em.py": "1", "benchmark/train.py": "4", "benchmark/protocol.py": "5"}
    new = {
        "attacks/em.py": "1",
        "attacks/_min_min.py": "7",
        "benchmark/api.py": "8",
        "benchmark/training/train.py": "4",
        "benchmark/catalogue/protocol.py": "2",
    }
    protocol = ["benchmark/catalogue/protocol.py"]
    assert changed_files(record(old, False), record(new, True)) == protocol
    assert changed_files(record(new, True), record(old, False)) == ["benchmark/protocol.py"]
    assert changed_files(record(old, False), record({**new, "attacks/em.py": "2"}, True)) == [
        "attacks/em.py",
        *protocol,
    ]
    del new["attacks/em.py"]
    assert "attacks/em.py" in changed_files(record(old, False), record(new, True))
