"""Data sets whose code crashes: an error of a few lines, and the full traceback in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmark.workspace.workspace import Workspace

HEAD = '''import sys
from benchmark import Dataset, dataset

@dataset(version=1, cite="nobody")
class Mine(Dataset):
    """Crash."""
'''
LOAD = "    def load(self, root, ctx, download=False):\n        "
SOURCE = f"    def source_id(self, root):\n        {{}}\n\n{LOAD}raise ValueError('not this one')"


def place(source: str, folder: Path) -> Workspace:
    """A workspace in ``folder`` with the plugin ``mine``, a data set."""
    (folder / "mine.py").write_text(HEAD + source, encoding="utf-8")
    return Workspace(
        plugins=(folder / "mine.py",), results=folder / "results", data_root=folder / "data"
    )


def plan(workspace: Workspace) -> None:
    axes = {"attacks": "none", "defenses": "none", "datasets": "mine", "protocols": "quick"}
    workspace.plan(workspace.suite({"name": "tiny", **axes}))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("return root.nope", "AttributeError: 'PosixPath' object has no attribute 'nope'"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
@pytest.mark.parametrize("source", [f"{LOAD}{{}}\n", f"{SOURCE}\n"])
def test_a_data_set_that_crashes_is_reported_with_its_line(
    source: str, line: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = source.format(line)
    with pytest.raises(ValueError, match="crashed") as caught:
        plan(place(text, tmp_path))
    (kept,) = tmp_path.glob("uebench-mine-*.txt")
    number = (HEAD + text).splitlines().index(f"        {line}") + 1
    assert str(caught.value).splitlines() == [
        f'data set "mine" crashed: {error}',
        f"        at {tmp_path / 'mine.py'}:{number}: {line}",
        f"        full traceback: {kept}",
    ]
    trace = kept.read_text(encoding="utf-8")
    assert trace.startswith("Traceback")
    assert trace.endswith(f"{error}\n")


@pytest.mark.parametrize("error", ["ValueError", "FileNotFoundError", "KeyboardInterrupt"])
def test_what_a_data_set_refuses_is_passed_on(error: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError, KeyboardInterrupt), match=r"^fetch it first$") as got:
        plan(place(f"{LOAD}raise {error}('fetch it first')\n", tmp_path))
    assert got.type.__name__ == error
