"""The cached copy of a data set, and subsets of it."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec, parse_spec
from benchmark.data import ImageSet
from benchmark.datasets._open import cached_facts, fingerprint, open_dataset

TOY = '''
from pathlib import Path
import torch
from benchmark import Context, Dataset, DatasetInfo, ImageSet, Splits, dataset

@dataset(version=1, cite="none")
class Toy(Dataset):
    """Six classes of unequal size, of which each load leaves a line in a file."""

    shade: int = 0

    def load(self, root: Path, ctx: Context, download: bool = False) -> Splits:
        with (root / "loads").open("a") as file:
            file.write("load\\n")
        info = DatasetInfo("toy", 6, tuple("abcdef"), 3, 8, 8, True)
        order = torch.randperm(39, generator=torch.Generator().manual_seed(0))
        y = torch.arange(6).repeat_interleave(torch.arange(4, 10))[order]
        x = torch.arange(39, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
        x = x + self.shade
        data = ImageSet(x.contiguous(), y, info)
        return Splits(data, data)
'''


@pytest.fixture
def toys(tmp_path: Path) -> Registry:
    plugin = tmp_path / "toy.py"
    plugin.write_text(TOY)
    return Registry((plugin,))


def loads(root: Path) -> int:
    file = root / "loads"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_second_open_reads_the_cache(tmp_path: Path, toys: Registry) -> None:
    first = open_dataset(Spec("toy"), tmp_path, toys)
    second = open_dataset(Spec("toy"), tmp_path, toys)
    third = open_dataset(parse_spec("toy[train_per_class=2,subset_seed=5]"), tmp_path, toys)
    assert loads(tmp_path) == 1
    assert second.info == first.info
    for split in ("train", "test"):
        assert getattr(first, split).fingerprint == getattr(second, split).fingerprint
    assert len(third.train) == 12
    assert sorted(file.suffix for file in (tmp_path / "cache").iterdir()) == [
        ".json",
        ".safetensors",
    ]


def test_other_parameters_are_another_copy(tmp_path: Path, toys: Registry) -> None:
    first = fingerprint(Spec("toy"), tmp_path, toys)
    assert fingerprint(parse_spec("toy[shade=1]"), tmp_path, toys) != first
    assert fingerprint(parse_spec("toy[shade=0,test_per_class=1]"), tmp_path, toys) == first
    assert loads(tmp_path) == 2


def test_asking_what_is_known_builds_nothing(tmp_path: Path, toys: Registry) -> None:
    assert cached_facts(Spec("toy"), tmp_path, toys) is None
    assert loads(tmp_path) == 0
    built = fingerprint(Spec("toy"), tmp_path, toys)
    cached = cached_facts(Spec("toy"), tmp_path, toys)
    assert cached is not None
    assert (cached.fingerprint, cached.notes) == (built, {})


def shard(root: Path) -> Path:
    return next((root / "cache").glob("*.safetensors"))


def test_truncated_shard_says_what_to_do(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    file = shard(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ValueError,
        match=r"toy-\w{16}\.safetensors has [\d,]+ bytes, expected [\d,]+: it is truncated; delete",
    ):
        open_dataset(Spec("toy"), tmp_path, toys)
    file.unlink()
    open_dataset(Spec("toy"), tmp_path, toys)
    assert loads(tmp_path) == 2


def test_a_shard_with_other_bytes_of_the_same_number_is_refused(
    tmp_path: Path, toys: Registry
) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    file = shard(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"is damaged \(its bytes are not those that were written\); delete it"
    ):
        open_dataset(Spec("toy"), tmp_path, toys)


def test_pickle_in_place_of_the_shard_is_refused(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    file = shard(tmp_path)
    size = file.stat().st_size
    file.write_bytes(pickle.dumps({"x": 1}).ljust(size, b"."))
    with pytest.raises(ValueError, match=r"toy-\w{16}\.safetensors is damaged .*; delete it"):
        open_dataset(Spec("toy"), tmp_path, toys)


@pytest.mark.parametrize("text", ["{", "[]", '{"size": "1"}'])
def test_damaged_json_says_what_to_do(tmp_path: Path, toys: Registry, text: str) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    shard(tmp_path).with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"toy-\w{16}\.json is damaged \(.*\); delete it"):
        fingerprint(Spec("toy"), tmp_path, toys)


def test_rebuild_with_other_content_is_refused(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    facts = shard(tmp_path).with_suffix(".json")
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "fingerprint": "0" * 64}))
    shard(tmp_path).unlink()
    with pytest.raises(
        ValueError, match=r"differ from the earlier ones .*delete .*\.json to accept"
    ):
        open_dataset(Spec("toy"), tmp_path, toys)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_unwritable_cache_is_found_before_the_build(tmp_path: Path, toys: Registry) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OSError, match=r"cannot write into the cache folder .*--data-root"):
        open_dataset(Spec("toy"), tmp_path, toys)
    assert loads(tmp_path) == 0


def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, toys: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left.*free space"):
        open_dataset(Spec("toy"), tmp_path, toys)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    open_dataset(Spec("toy"), tmp_path, toys)
    assert loads(tmp_path) == 2


def pick(root: Path, toys: Registry, **params: int) -> ImageSet:
    return open_dataset(Spec("toy", params), root, toys).train


def test_subsets_nest_and_keep_order(tmp_path: Path, toys: Registry) -> None:
    two, four = (
        pick(tmp_path, toys, train_per_class=n, subset_seed=3).x[:, 0, 0, 0] for n in (2, 4)
    )
    assert (len(two), len(four)) == (12, 24)
    assert set(two.tolist()) < set(four.tolist())
    assert torch.equal(
        two, two.sort().values
    )  # a toy image's level is its position in the whole set
    assert two.bincount(minlength=39).max() == 1


def test_subset_is_the_same_in_every_version(tmp_path: Path, toys: Registry) -> None:
    chosen = pick(tmp_path, toys, train_per_class=2)
    assert chosen.x[:, 0, 0, 0].tolist() == [0, 9, 10, 17, 22, 23, 25, 26, 27, 29, 34, 37]
    assert chosen.y.bincount().tolist() == [2] * 6


def test_subsets_depend_on_the_seed_alone(tmp_path: Path, toys: Registry) -> None:
    first, again, other = (
        pick(tmp_path, toys, train_per_class=2, subset_seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_subset_of_one_split_leaves_the_other(tmp_path: Path, toys: Registry) -> None:
    splits = open_dataset(parse_spec("toy[test_per_class=1]"), tmp_path, toys)
    assert (len(splits.train), len(splits.test)) == (39, 6)


def test_subset_larger_than_a_class_is_refused(tmp_path: Path, toys: Registry) -> None:
    with pytest.raises(
        ValueError, match='train_per_class=5, but class "a" of toy has 4 train images'
    ):
        pick(tmp_path, toys, train_per_class=5)


def test_a_plan_knows_the_sizes_of_classes(tmp_path: Path, toys: Registry) -> None:
    assert cached_facts(Spec("toy"), tmp_path, toys) is None
    open_dataset(Spec("toy"), tmp_path, toys)
    facts = cached_facts(parse_spec("toy[train_per_class=4]"), tmp_path, toys)
    assert facts is not None
    assert facts.class_counts["test"] == {"a": 4, "b": 5, "c": 6, "d": 7, "e": 8, "f": 9}
    with pytest.raises(
        ValueError, match='test_per_class=6, but class "a" of toy has 4 test images'
    ):
        cached_facts(parse_spec("toy[test_per_class=6]"), tmp_path, toys)


def test_damaged_class_counts_are_told(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    (file,) = (tmp_path / "cache").glob("*.json")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "class_counts": {"train": 5}}))
    with pytest.raises(ValueError, match="is damaged"):
        cached_facts(Spec("toy"), tmp_path, toys)


def test_negative_subset_is_refused(tmp_path: Path, toys: Registry) -> None:
    with pytest.raises(
        ValueError, match=r"test_per_class=-1, expected 0 \(all images\) or a positive number"
    ):
        pick(tmp_path, toys, test_per_class=-1)


def test_validation_images_are_the_last_of_each_class(tmp_path: Path, toys: Registry) -> None:
    """A toy image's level is its position in the whole set."""
    whole = open_dataset(Spec("toy"), tmp_path, toys).train
    splits = open_dataset(parse_spec("toy[validation_per_class=2]"), tmp_path, toys)
    held_out = [
        position
        for label in range(6)
        for position in (whole.y == label).nonzero().flatten().tolist()[-2:]
    ]
    assert splits.test.x[:, 0, 0, 0].tolist() == sorted(held_out)
    assert splits.train.x[:, 0, 0, 0].tolist() == sorted(set(range(39)) - set(held_out))
    assert splits.test.y.tolist() == [int(whole.y[position]) for position in sorted(held_out)]


def test_subsets_are_taken_from_both_sides_of_the_validation_split(
    tmp_path: Path, toys: Registry
) -> None:
    spec = "toy[validation_per_class=2,train_per_class=2,test_per_class=1]"
    splits = open_dataset(parse_spec(spec), tmp_path, toys)
    assert splits.train.y.bincount().tolist() == [2] * 6
    assert splits.test.y.bincount().tolist() == [1] * 6
    assert not set(splits.train.x[:, 0, 0, 0].tolist()) & set(splits.test.x[:, 0, 0, 0].tolist())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "toy[validation_per_class=4]",
            'validation_per_class=4, but class "a" of toy has 4 training images, so that none '
            "would be left to train on; hold out at most 3",
        ),
        ("toy[validation_per_class=-1]", r"validation_per_class=-1, expected 0 \(none\)"),
        (
            "toy[validation_per_class=2,train_per_class=3]",
            'train_per_class=3, but class "a" of toy has 2 train images',
        ),
        (
            "toy[validation_per_class=2,test_per_class=3]",
            'test_per_class=3, but class "a" of toy has 2 test images',
        ),
    ],
)
def test_impossible_validation_splits_are_refused_when_planned_and_when_read(
    spec: str, message: str, tmp_path: Path, toys: Registry
) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    with pytest.raises(ValueError, match=message):
        cached_facts(parse_spec(spec), tmp_path, toys)
    with pytest.raises(ValueError, match=message):
        open_dataset(parse_spec(spec), tmp_path, toys)


def test_no_validation_split_leaves_keys_as_they_were(tmp_path: Path, toys: Registry) -> None:
    resolved = toys.resolve("dataset", parse_spec("toy[validation_per_class=0]"))
    assert sorted(resolved.params) == ["shade", "subset_seed", "test_per_class", "train_per_class"]
