"""Poisoned and purified sets written for use elsewhere, and the commands that write them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.data import ImageSet, Splits
from benchmark.datasets._open import open_dataset
from benchmark.storage.export import export
from support.command_line import Call
from support.sets import random_set


@pytest.fixture
def source() -> Splits:
    return Splits(random_set(30, 3, 3, 16, 16), random_set(9, 3, 3, 16, 16))


@pytest.fixture
def poisoned(source: Splits) -> ImageSet:
    return source.train.perturb(torch.full(source.train.x.shape, 0.02))


def manifest(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return content


def test_a_folder_of_png_is_a_data_set_again(
    tmp_path: Path, source: Splits, poisoned: ImageSet, registry: Registry
) -> None:
    export(tmp_path / "out", "png", poisoned, source, {"attack": "mine"})
    again = open_dataset(
        Spec("folder", {"path": str(tmp_path / "out"), "size": 16}), tmp_path, registry
    )
    order = poisoned.y.argsort(stable=True)  # a folder is read class after class
    assert torch.equal(again.train.x, poisoned.x[order])
    assert torch.equal(again.train.y, poisoned.y[order])
    assert torch.equal(again.test.x, source.test.x[source.test.y.argsort(stable=True)])
    assert manifest(tmp_path / "out") == {
        "attack": "mine",
        "format": "png",
        "images": 30,
        "of": 30,
        "sha256": poisoned.fingerprint,
    }


def test_arrays_hold_images_labels_and_the_change(
    tmp_path: Path, source: Splits, poisoned: ImageSet
) -> None:
    export(tmp_path / "out", "npz", poisoned, source, {})
    with np.load(tmp_path / "out" / "images.npz", allow_pickle=False) as arrays:
        images, change = (
            torch.from_numpy(arrays[name]).permute(0, 3, 1, 2)
            for name in ("images", "perturbation")
        )
        assert torch.equal(images, poisoned.x)
        assert torch.equal(images.short() - change, source.train.x.short())
        assert arrays["labels"].tolist() == poisoned.y.tolist()


def test_the_change_alone_is_signed_and_needs_no_unpickling(tmp_path: Path, source: Splits) -> None:
    darker = source.train.perturb(torch.full(source.train.x.shape, -5 / 255))
    export(tmp_path / "out", "pt", darker, source, {})
    change = torch.load(tmp_path / "out" / "perturbation.pt", weights_only=True)
    assert change.dtype == torch.float32
    assert torch.allclose(change, (darker.x.float() - source.train.x.float()) / 255)
    assert float(change.min()) == pytest.approx(-5 / 255)


def test_images_left_out_leave_no_change_to_write(
    tmp_path: Path, source: Splits, poisoned: ImageSet
) -> None:
    some = poisoned.select(torch.arange(0, 30, 2))
    with pytest.raises(
        ValueError,
        match="15 of 30 images were kept, so there is no perturbation for each; take png or npz",
    ):
        export(tmp_path / "out", "pt", some, source, {})
    export(tmp_path / "out", "npz", some, source, {})
    with np.load(tmp_path / "out" / "images.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["images", "labels"]


@pytest.mark.parametrize("name", ["..", "a/b", " ", "a\0b", ".a", "a", 256 * "x"])
def test_class_names_stay_inside_the_folder(name: str, tmp_path: Path, source: Splits) -> None:
    info = replace(source.info, class_names=("a", name, "c"))
    hostile = Splits(
        ImageSet(source.train.x, source.train.y, info), ImageSet(source.test.x, source.test.y, info)
    )
    with pytest.raises(
        ValueError, match="cannot be the name of a folder of its own; take npz or pt"
    ):
        export(tmp_path / "out", "png", hostile.train, hostile, {})
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, source: Splits, poisoned: ImageSet
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        FileExistsError,
        match="is there already and not an empty folder; choose a new one with --out",
    ):
        export(tmp_path, "npz", poisoned, source, {})
    with pytest.raises(ValueError, match='unknown format "zip"; expected png, npz, pt'):
        export(tmp_path / "out", "zip", poisoned, source, {})


def test_poison_writes_a_protected_copy(call: Call, images: Path, tmp_path: Path) -> None:
    where = ("--dataset", f"folder[path={images},size=16]")
    result = call("poison", "lsp[patch=4]", *where, "--out", "protected", "--seed", "3")
    assert result.code == 0, result.err
    assert (
        f"20 images of 16x16 pixels with attack lsp[patch=4] in {tmp_path / 'protected'}: L-inf "
        in result.out
    )
    assert (
        f'to read them again: --dataset "folder[path={tmp_path / "protected"},size=16]"'
        in result.out
    )
    about = manifest(tmp_path / "protected")
    assert about["attack"] == {
        "spec": "lsp[patch=4]",
        "name": "lsp",
        "params": {"class_sep": 10.0, "patch": 4, "rms": 6 / 255},
        "version": 1,
    }
    assert (about["craft_seed"], about["format"]) == (3, "png")
    assert (
        "1 stage: 1 cached"
        in call(
            "poison", "lsp[patch=4]", *where, "--out", "other", "--seed", "3", "--format", "pt"
        ).err
    )
    again = call("poison", "lsp[patch=4]", *where, "--out", "protected")
    assert again.code == 2
    assert "protected is there already and not an empty folder" in again.err


def test_purify_reads_what_poison_wrote(call: Call, images: Path, tmp_path: Path) -> None:
    assert (
        call(
            "poison",
            "lsp[patch=4]",
            "--dataset",
            f"folder[path={images},size=16]",
            "--out",
            "protected",
        ).code
        == 0
    )
    result = call(
        "purify",
        "grayscale",
        "--dataset",
        "folder[path=protected,size=16]",
        "--out",
        "clean",
        "--format",
        "npz",
    )
    assert result.code == 0, result.err
    with np.load(tmp_path / "clean" / "images.npz", allow_pickle=False) as arrays:
        assert (arrays["images"][..., 0] == arrays["images"][..., 2]).all()
    assert manifest(tmp_path / "clean")["defense"] == {
        "spec": "grayscale",
        "name": "grayscale",
        "params": {"test": False},
        "version": 1,
    }


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("purify", "none"), 'defense "none" changes nothing; name one that changes images'),
        (("purify", "at"), 'defense "at" changes training, not images'),
        (("poison", "lsq"), 'unknown attack "lsq"; did you mean "lsp"'),
        (("poison", "lsp[patch=0]"), "patch=0"),
        (("poison", "lsp[patch=5]"), "patch=5 does not divide images of 16x16 pixels"),
    ],
)
def test_what_cannot_be_made_says_why(
    call: Call, images: Path, tmp_path: Path, command: tuple[str, str], message: str
) -> None:
    result = call(*command, "--dataset", f"folder[path={images},size=16]", "--out", "out")
    assert result.code != 0
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_a_class_without_images_is_no_folder(
    tmp_path: Path, source: Splits, poisoned: ImageSet
) -> None:
    with pytest.raises(
        ValueError,
        match='no image of class "1" is left, so the folder would not be a data set; take npz',
    ):
        export(
            tmp_path / "out",
            "png",
            poisoned.select((poisoned.y != 1).nonzero().flatten()),
            source,
            {},
        )


def test_images_left_out_are_counted(call: Call, images: Path, tmp_path: Path) -> None:
    filtering = (
        "    def purify(self, data, ctx):\n"
        "        return data.select((data.y != 0).nonzero().flatten())\n"
    )
    text = (
        'from benchmark import Defense, defense\n\n@defense(version=1, cite="x", filters=True)\n'
        f'class Sieve(Defense):\n    """Sieve."""\n{filtering}'
    )
    (tmp_path / "sieve.py").write_text(text)
    args = (
        "--plugin",
        "sieve.py",
        "--dataset",
        f"folder[path={images},size=16]",
        "--out",
        "out",
        "--format",
        "npz",
    )
    result = call("purify", "sieve", *args)
    assert "10 of 20 images of 16x16 pixels with defense sieve" in result.out, result.err


@pytest.mark.parametrize("out", ["file/out", "link"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    call: Call, images: Path, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    result = call(
        "poison", "lsp[patch=4]", "--dataset", f"folder[path={images},size=16]", "--out", out
    )
    assert result.code == 2
    assert "choose a" in result.err
    assert not (tmp_path / "results").exists()


def test_help_shows_parameters_in_brackets(call: Call) -> None:
    assert "em[granularity=class]" in call("poison", "--help").out
    assert "jpeg[quality=30]" in call("purify", "--help").out


def test_a_broken_plugin_is_told(call: Call, images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from benchmark import attack, Attack\n\n@attack(version=1\n")
    result = call(
        "poison",
        "lsp[patch=4]",
        "--plugin",
        "bad.py",
        "--dataset",
        f"folder[path={images},size=16]",
        "--out",
        "out",
    )
    assert "bad.py" in result.err
