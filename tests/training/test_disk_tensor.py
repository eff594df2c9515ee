"""Tensors in files: what was written is what is read, by slices and by positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.training.disk_tensor import DiskTensor


@pytest.mark.parametrize("named", [True, False])
def test_rows_are_those_of_a_tensor(named: bool, tmp_path: Path) -> None:
    rows = DiskTensor.zeros(tmp_path if named else None, (9, 2, 3), torch.float16)
    expected = torch.zeros(9, 2, 3, dtype=torch.float16)
    generator = torch.Generator().manual_seed(0)
    for where in (
        slice(2, 5),
        torch.tensor([8, 0, 4]),
        slice(7, 20),
        torch.tensor([], dtype=torch.int64),
    ):
        values = torch.rand(expected[where].shape, generator=generator).half()
        rows[where] = values
        expected[where] = values
    assert len(rows) == 9
    assert torch.equal(rows[:], expected)
    assert torch.equal(rows[torch.tensor([5, 4, 4])], expected[[5, 4, 4]])
    assert rows[3:3].shape == (0, 2, 3)


def test_a_kept_file_is_found_again_and_deleted(tmp_path: Path) -> None:
    rows = DiskTensor.zeros(tmp_path / "not there yet", (4, 2), torch.int8)
    rows[1:2] = torch.tensor([[3, -4]])
    assert rows.path is not None
    assert rows.path.suffix == ".tmp"  # which a later run sweeps away if this one is killed
    rows.keep()
    assert [path.suffix for path in rows.path.parent.iterdir()] == [".rows"]
    assert DiskTensor(rows.path, (4, 2), torch.int8)[1:3].tolist() == [[3, -4], [0, 0]]
    rows.delete()
    rows.delete()
    assert not rows.path.exists()


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    rows = DiskTensor.zeros(tmp_path, (4, 2), torch.int8)
    assert rows.path is not None
    with pytest.raises(OSError, match="has 8 bytes, expected 10"):
        DiskTensor(rows.path, (5, 2), torch.int8)
    rows.path.write_bytes(b"1234")
    with pytest.raises(OSError, match="has become shorter while it was in use"):
        rows[:]


def test_other_places_than_rows_are_refused() -> None:
    rows = DiskTensor.zeros(None, (4, 2), torch.int8)
    for where in (torch.tensor([4]), torch.tensor([-1]), torch.tensor([True, False])):
        with pytest.raises(IndexError, match="expected int64 from 0 to 3"):
            rows[where] = torch.zeros(len(where), 2)
    with pytest.raises(IndexError, match="a slice with step 2, expected 1"):
        rows[::2]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError,
        match=f"cannot write to {tmp_path / 'file'}: a file stands where a folder should be",
    ):
        DiskTensor.zeros(tmp_path / "file", (1,), torch.int8)
