"""A loop that was killed goes on where its last saved round was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark import Context
from benchmark.training import checkpoint as resume
from benchmark.training.checkpoint import Checkpoint, named


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    return Context(scratch=tmp_path, on_log=lambda line: None)


def test_state_comes_back_with_its_round(scratch: Context) -> None:
    first = Checkpoint(scratch)
    assert (first.done, first.tensors) == (0, {})
    first.save(3, {"delta": torch.arange(3), **named("model", {"w": torch.ones(2)})})
    again = Checkpoint(scratch)
    assert again.done == 3
    assert again.tensors["delta"].tolist() == [0, 1, 2]
    assert {name: value.tolist() for name, value in again.part("model").items()} == {"w": [1, 1]}


def test_two_loops_of_one_method_do_not_meet(scratch: Context) -> None:
    Checkpoint(scratch, "first").save(1, {})
    assert Checkpoint(scratch, "second").done == 0


def test_recent_states_are_not_written_again_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SAVE_EVERY", 1e9)
    checkpoint = Checkpoint(Context(scratch=tmp_path))
    checkpoint.save(1, {})
    assert not checkpoint.path or not checkpoint.path.exists()
    checkpoint.save(2, {}, now=True)
    assert Checkpoint(Context(scratch=tmp_path)).done == 2


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x80\x04N."])
def test_a_damaged_state_starts_anew(scratch: Context, content: bytes) -> None:
    assert scratch.scratch is not None
    (scratch.scratch / "state.safetensors").write_bytes(content)
    lines: list[str] = []
    scratch.on_log = lines.append
    assert Checkpoint(scratch).done == 0
    assert "cannot be read" in lines[0]


def test_without_a_scratch_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint(Context())
    checkpoint.save(1, {"delta": torch.ones(1)}, now=True)
    assert Checkpoint(Context()).done == 0
