"""Data sets: the embedded recipe, folders of images, torchvision's sets, the cache and subsets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

from benchmark.api import Context
from benchmark.data import ImageSet, Splits
from benchmark.datasets import fingerprint, known, open_dataset
from benchmark.datasets._listing import list_folder, listing_digest
from benchmark.datasets._torchvision import image_set
from benchmark.datasets.embedded import Embedded
from benchmark.datasets.folder import decode
from benchmark.registry import Registry
from benchmark.spec import Spec, parse_spec

REGISTRY = Registry()
EMBEDDED_GOLDEN = "5e489de8932abc25d102b7f7e2611bf78abce86c241db19702131b3f49804b73"

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
        y = torch.arange(6).repeat_interleave(torch.arange(4, 10))[torch.randperm(39, generator=torch.Generator().manual_seed(0))]
        x = torch.arange(39, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8) + self.shade
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


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, cat and dog, of 3 and 2 training images and a test image each."""
    top = tmp_path / "images"
    for seed, name in enumerate(("train/dog/1", "train/dog/2", "train/cat/2", "train/cat/10", "train/cat/1", "test/cat/1", "test/dog/1")):
        file = top / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(file)
    return top


def folder(top: Path, **params: Any) -> Spec:
    return Spec("folder", {"path": str(top), "size": 16, **params})


def load(top: Path, tmp_path: Path, ctx: Context | None = None, **params: Any) -> Splits:
    return open_dataset(folder(top, **params), tmp_path / "root", REGISTRY, ctx)


# --- embedded ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> Splits:
    return Embedded(scenes=1).load(Path("/nowhere"), Context())


def test_embedded_is_the_same_to_the_byte(embedded: Splits) -> None:
    again = Embedded(scenes=1).load(Path("/elsewhere"), Context(seed_axes=("other",)))
    for split in (embedded, again):
        content = b"".join(part.numpy().tobytes() for data in (split.train, split.test) for part in (data.x, data.y))
        assert hashlib.sha256(content).hexdigest() == EMBEDDED_GOLDEN


def test_embedded_seeds_differ_in_scenes_and_split(embedded: Splits) -> None:
    other = Embedded(scenes=1, seed=1).load(Path("/nowhere"), Context())
    assert not torch.equal(other.train.y, embedded.train.y)
    assert (other.train.x != embedded.train.x).float().mean() > 0.9


def test_embedded_counts_and_info(embedded: Splits) -> None:
    assert (len(embedded.train), len(embedded.test)) == (1400, 397)
    assert torch.equal(
        embedded.train.y.bincount() + embedded.test.y.bincount(), torch.tensor([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    )
    assert tuple(embedded.train.x.shape[1:]) == (3, 32, 32)
    assert not embedded.info.hflip
    assert embedded.train.x.min() < 10
    assert embedded.train.x.max() > 245


def test_embedded_scenes_repeat_each_digit() -> None:
    data = Embedded(scenes=2).load(Path("/nowhere"), Context()).train
    assert len(data) == 2800
    assert torch.equal(data.y[::2], data.y[1::2])
    assert not torch.equal(data.x[::2], data.x[1::2])


def test_embedded_digits_stand_out_by_luminance(embedded: Splits) -> None:
    """Ink differs from the crop's mean by 0.30 to 0.45 at opacity 0.7 to 0.95, so the farthest pixel is at least about 0.2 away."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luminance = (embedded.train.x.float() / 255 * weights).sum(1).flatten(1)
    farthest = (luminance - luminance.median(1, keepdim=True).values).abs().max(1).values
    assert farthest.quantile(0.01) > 0.18
    assert farthest.median() < 0.6


def test_embedded_refuses_no_scenes() -> None:
    with pytest.raises(ValueError, match=r'dataset "embedded\[scenes=0\]": scenes=0, expected at least 1'):
        REGISTRY.build("dataset", parse_spec("embedded[scenes=0]"))


# --- cache ------------------------------------------------------------------------------------------------------------


def test_second_open_reads_the_cache(tmp_path: Path, toys: Registry) -> None:
    first = open_dataset(Spec("toy"), tmp_path, toys)
    second = open_dataset(Spec("toy"), tmp_path, toys)
    third = open_dataset(parse_spec("toy[train_per_class=2,subset_seed=5]"), tmp_path, toys)
    assert loads(tmp_path) == 1
    assert second.info == first.info
    for split in ("train", "test"):
        assert getattr(first, split).fingerprint == getattr(second, split).fingerprint
    assert len(third.train) == 12
    assert sorted(file.suffix for file in (tmp_path / "cache").iterdir()) == [".json", ".safetensors"]


def test_other_parameters_are_another_copy(tmp_path: Path, toys: Registry) -> None:
    first = fingerprint(Spec("toy"), tmp_path, toys)
    assert fingerprint(parse_spec("toy[shade=1]"), tmp_path, toys) != first
    assert fingerprint(parse_spec("toy[shade=0,test_per_class=1]"), tmp_path, toys) == first
    assert loads(tmp_path) == 2


def test_asking_what_is_known_builds_nothing(tmp_path: Path, toys: Registry) -> None:
    assert known(Spec("toy"), tmp_path, toys) is None
    assert loads(tmp_path) == 0
    built = fingerprint(Spec("toy"), tmp_path, toys)
    cached = known(Spec("toy"), tmp_path, toys)
    assert cached is not None
    assert (cached.fingerprint, cached.notes) == (built, {})


def test_fingerprint_of_a_cached_set_needs_no_torch(tmp_path: Path, images: Path) -> None:
    spec = folder(images)
    built = fingerprint(spec, tmp_path / "root", REGISTRY)
    script = (
        "import sys\nfrom pathlib import Path\nfrom benchmark.datasets import fingerprint\nfrom benchmark.registry import Registry\n"
        "from benchmark.spec import Spec\n"
        f"print(fingerprint(Spec('folder', {dict(spec.params)!r}), Path({str(tmp_path / 'root')!r}), Registry()))\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'slow import'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == built


def shard(root: Path) -> Path:
    return next((root / "cache").glob("*.safetensors"))


def test_truncated_shard_says_what_to_do(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    file = shard(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"toy-\w{16}\.safetensors has [\d,]+ bytes, expected [\d,]+: it is truncated; delete it"):
        open_dataset(Spec("toy"), tmp_path, toys)
    file.unlink()
    open_dataset(Spec("toy"), tmp_path, toys)
    assert loads(tmp_path) == 2


def test_a_shard_with_other_bytes_of_the_same_number_is_refused(tmp_path: Path, toys: Registry) -> None:
    open_dataset(Spec("toy"), tmp_path, toys)
    file = shard(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged \(its bytes are not those that were written\); delete it"):
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
    with pytest.raises(ValueError, match=r"differ from the earlier ones .*delete .*\.json to accept"):
        open_dataset(Spec("toy"), tmp_path, toys)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_unwritable_cache_is_found_before_the_build(tmp_path: Path, toys: Registry) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OSError, match=r"cannot write into the cache folder .*--data-root"):
        open_dataset(Spec("toy"), tmp_path, toys)
    assert loads(tmp_path) == 0


def test_full_disk_leaves_nothing_behind(tmp_path: Path, toys: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- subsets ----------------------------------------------------------------------------------------------------------


def pick(root: Path, toys: Registry, **params: int) -> ImageSet:
    return open_dataset(Spec("toy", params), root, toys).train


def test_subsets_nest_and_keep_order(tmp_path: Path, toys: Registry) -> None:
    two, four = (pick(tmp_path, toys, train_per_class=n, subset_seed=3).x[:, 0, 0, 0] for n in (2, 4))
    assert (len(two), len(four)) == (12, 24)
    assert set(two.tolist()) < set(four.tolist())
    assert torch.equal(two, two.sort().values)  # a toy image's level is its position in the whole set
    assert two.bincount(minlength=39).max() == 1


def test_subset_is_the_same_in_every_version(tmp_path: Path, toys: Registry) -> None:
    chosen = pick(tmp_path, toys, train_per_class=2)
    assert chosen.x[:, 0, 0, 0].tolist() == [0, 9, 10, 17, 22, 23, 25, 26, 27, 29, 34, 37]
    assert chosen.y.bincount().tolist() == [2] * 6


def test_subsets_depend_on_the_seed_alone(tmp_path: Path, toys: Registry) -> None:
    first, again, other = (pick(tmp_path, toys, train_per_class=2, subset_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_subset_of_one_split_leaves_the_other(tmp_path: Path, toys: Registry) -> None:
    splits = open_dataset(parse_spec("toy[test_per_class=1]"), tmp_path, toys)
    assert (len(splits.train), len(splits.test)) == (39, 6)


def test_subset_larger_than_a_class_is_refused(tmp_path: Path, toys: Registry) -> None:
    with pytest.raises(ValueError, match='train_per_class=5, but class "a" of toy has 4 train images'):
        pick(tmp_path, toys, train_per_class=5)


def test_negative_subset_is_refused(tmp_path: Path, toys: Registry) -> None:
    with pytest.raises(ValueError, match=r"test_per_class=-1, expected 0 \(all images\) or a positive number"):
        pick(tmp_path, toys, test_per_class=-1)


# --- folder -----------------------------------------------------------------------------------------------------------


def test_folder_order_labels_and_pixels(tmp_path: Path, images: Path) -> None:
    splits = load(images, tmp_path)
    assert splits.info.name == "folder"
    assert splits.info.class_names == ("cat", "dog")
    assert splits.info.hflip
    assert splits.train.y.tolist() == [0, 0, 0, 1, 1]
    assert splits.test.y.tolist() == [0, 1]
    order = [4, 3, 2, 0, 1]  # seeds of cat/1, cat/10, cat/2, dog/1, dog/2
    for image, seed in zip(splits.train.x, order, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture(seed)))


def test_folder_fingerprint_follows_content_not_place(tmp_path: Path, images: Path) -> None:
    first = fingerprint(folder(images), tmp_path / "root", REGISTRY)
    moved = images.rename(tmp_path / "moved")
    assert fingerprint(folder(moved), tmp_path / "root", REGISTRY) == first
    picture(99).save(moved / "train/dog/3.png")
    assert fingerprint(folder(moved), tmp_path / "root", REGISTRY) != first


def test_changed_folder_is_noticed(tmp_path: Path, images: Path) -> None:
    before = listing_digest(images)
    assert listing_digest(images) == before
    file = images / "train/dog/1.png"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = listing_digest(images)
    (images / "train/owl").mkdir()
    assert len({before, touched, listing_digest(images)}) == 3


def test_folder_may_hold_its_own_cache(images: Path) -> None:
    first = open_dataset(folder(images), images, REGISTRY)
    assert (images / "cache").is_dir()
    assert known(folder(images), images, REGISTRY) is not None
    assert len(first.train) == 5


def test_folder_that_changes_while_it_is_read(tmp_path: Path, images: Path) -> None:
    def meddle(done: float, note: str) -> None:
        picture(7).save(images / "train/cat/3.png")

    ctx = Context()
    ctx.track = lambda items, total, note="": (meddle(0, ""), *items)[1:]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ValueError, match="changed while they were read; run again"):
        load(images, tmp_path, ctx)


def test_folder_reports_progress(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1, 1000))
    monkeypatch.setattr("benchmark.api.time", SimpleNamespace(monotonic=lambda: next(clock)))
    seen: list[tuple[float, str]] = []
    load(images, tmp_path, Context(on_progress=lambda done, note: seen.append((done, note))))
    assert seen[-1] == (1.0, "decoding 7 images")


def test_folder_with_unequal_image_forms(tmp_path: Path, images: Path) -> None:
    picture(1, (40, 16)).save(images / "train/cat/wide.JPG")
    picture(1).convert("L").save(images / "train/cat/grey.bmp")
    picture(1).quantize(16).save(images / "train/cat/palette.gif")
    picture(1).save(images / "train/cat/modern.webp")
    picture(1).convert("CMYK").save(images / "train/cat/print.tif")
    picture(1).convert("1").save(images / "train/cat/bits.png")
    assert load(images, tmp_path).train.y.tolist() == [0] * 9 + [1] * 2


def test_decode_crops_the_middle_of_a_wide_image(tmp_path: Path) -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, :16], wide[:, 16:32], wide[:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    for name in ("wide", "tall"):
        assert (decode(tmp_path / f"{name}.png", 16) == np.array([0, 255, 0])[:, None, None]).all()


@pytest.mark.parametrize("size", [8, 40])
def test_decode_resizes_the_shorter_side_and_crops_the_centre(tmp_path: Path, size: int) -> None:
    image = picture(0, (48, 16))
    image.save(tmp_path / "noise.png")
    whole = image.resize((3 * size, size), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((size, 0, 2 * size, size))).astype(int)
    assert np.abs(decode(tmp_path / "noise.png", size).transpose(1, 2, 0) - expected).max() <= 1


def test_decode_16_bit_grey(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]] * 4, np.uint16).repeat(2, 1)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    out = decode(tmp_path / "deep.png", 8)
    assert out[:, 0, ::2].tolist() == [[0, 0, 1, 1]] * 3
    assert out[:, 1, ::2].tolist() == [[128, 255, 254, 255]] * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_decode_lays_transparency_over_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.paste((10, 10, 10, 255), (0, 0, 4, 8))
    image = clear.convert(mode) if mode != "P" else clear.quantize(4)
    image.save(tmp_path / "clear.png")
    out = decode(tmp_path / "clear.png", 8)
    assert (out[:, :, :4] == 10).all()
    assert (out[:, :, 4:] == 255).all()


def test_decode_turns_images_upright(tmp_path: Path) -> None:
    sideways = np.zeros((8, 8, 3), np.uint8)
    sideways[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(sideways).save(tmp_path / "turned.png", exif=exif)
    out = decode(tmp_path / "turned.png", 8)
    assert not out[:, :4].any()
    assert (out[:, 4:] == 255).all()


def test_decode_refuses_floating_point_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point pixels have no known range"):
        decode(tmp_path / "float.tif", 8)


def test_more_than_256_classes(tmp_path: Path) -> None:
    for number in range(258):
        for split in ("train", "test"):
            file = tmp_path / f"many/{split}/c{number:03}/1.bmp"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(file)
    splits = load(tmp_path / "many", tmp_path, size=8)
    assert splits.info.num_classes == 258
    assert splits.train.y.tolist() == list(range(258))
    assert splits.test.x[257, :2, 0, 0].tolist() == [1, 1]


def break_two(top: Path) -> None:
    (top / "train/cat/0.png").write_bytes(b"not a picture")
    whole = (top / "test/dog/1.png").read_bytes()
    (top / "test/dog/2.png").write_bytes(whole[: len(whole) // 2])


def test_broken_images_stop_the_load(tmp_path: Path, images: Path) -> None:
    break_two(images)
    message = r"2 of 9 images in .*images cannot be read: train/cat/0\.png \(cannot identify.*\); test/dog/2\.png \(.*on_error=skip"
    with pytest.raises(ValueError, match=message):
        load(images, tmp_path)


def test_many_broken_images_are_counted(tmp_path: Path, images: Path) -> None:
    for number in range(8):
        (images / f"train/dog/x{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"8 of 15 .*x4\.png \([^;]*; and 3 more\."):
        load(images, tmp_path)


def test_broken_images_may_be_left_out(tmp_path: Path, images: Path) -> None:
    whole = load(images, tmp_path)
    break_two(images)
    lines: list[str] = []
    splits = load(images, tmp_path, Context(on_log=lines.append), on_error="skip")
    assert torch.equal(splits.train.x, whole.train.x)
    assert torch.equal(splits.train.y, whole.train.y)
    assert torch.equal(splits.test.x, whole.test.x)
    assert any("left out" in line and "train/cat/0.png: cannot identify" in line for line in lines)
    assert "folder: left out 2 of 9 images that cannot be read" in lines
    assert splits.notes == load(images, tmp_path, on_error="skip").notes == {"left_out": 2}  # from the cache, too
    assert whole.notes == {}


def test_class_whose_images_are_all_broken(tmp_path: Path, images: Path) -> None:
    (images / "test/dog/1.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no image can be read of these classes in .*test: dog"):
        load(images, tmp_path, on_error="skip")


def test_other_files_are_logged_and_hidden_ones_ignored(tmp_path: Path, images: Path) -> None:
    for name in ("train/readme.txt", "train/cat/notes.csv", "train/cat/.DS_Store"):
        (images / name).write_text("x")
    lines: list[str] = []
    assert len(load(images, tmp_path, Context(on_log=lines.append)).train) == 5
    assert any("2 files" in line and "train/cat/notes.csv, train/readme.txt" in line for line in lines)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing-here does not exist; folder\[path=...\] expects a folder with train/<class>"):
        load(tmp_path / "nothing-here", tmp_path)


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"set\.zip is not a folder"):
        load(tmp_path / "set.zip", tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty/train holds no classes; expected one folder of images a class, train/<class>/\*"):
        load(tmp_path / "empty", tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "flat/train").mkdir(parents=True)
    picture(0).save(tmp_path / "flat/train/1.png")
    with pytest.raises(ValueError, match=r"train holds no classes \(it holds files, but no folders\)"):
        load(tmp_path / "flat", tmp_path)


def remove(top: Path, name: str) -> None:
    for file in sorted((top / name).rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (top / name).rmdir()


def test_missing_test_folder(tmp_path: Path, images: Path) -> None:
    remove(images, "test")
    with pytest.raises(ValueError, match="test holds no classes"):
        load(images, tmp_path)


def test_one_class(tmp_path: Path, images: Path) -> None:
    remove(images, "train/dog")
    with pytest.raises(ValueError, match=r'holds one class \("cat"\); classification needs at least 2'):
        load(images, tmp_path)


def test_class_that_only_test_has(tmp_path: Path, images: Path) -> None:
    (images / "test/owl").mkdir()
    picture(0).save(images / "test/owl/1.png")
    with pytest.raises(ValueError, match="test has classes that train does not have: owl"):
        load(images, tmp_path)


def test_class_that_only_train_has(tmp_path: Path, images: Path) -> None:
    remove(images, "test/dog")
    with pytest.raises(ValueError, match="test lacks classes that train has: dog"):
        load(images, tmp_path)


def test_empty_class(tmp_path: Path, images: Path) -> None:
    (images / "train/owl").mkdir()
    with pytest.raises(ValueError, match="train has 1 empty classes: owl"):
        load(images, tmp_path)


def test_folder_inside_a_class(tmp_path: Path, images: Path) -> None:
    (images / "train/cat/more").mkdir()
    with pytest.raises(ValueError, match="train/cat/more is a folder inside a class; put images directly into train/cat"):
        load(images, tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path, images: Path) -> None:
    picture(0).save(tmp_path / "images-private.png")  # begins like the folder's own name
    (images / "train/cat/link.png").symlink_to(tmp_path / "images-private.png")
    with pytest.raises(ValueError, match=r"train/cat/link\.png is a link to .*images-private\.png, outside the data set's folder"):
        load(images, tmp_path)


def test_links_to_folders_are_refused(tmp_path: Path, images: Path) -> None:
    (images / "train/loop").symlink_to(images / "train")
    with pytest.raises(ValueError, match="train/loop is a link to a folder"):
        load(images, tmp_path)


def test_links_within_the_folder_are_read_and_dangling_ones_named(tmp_path: Path, images: Path) -> None:
    (images / "train/cat/0.png").symlink_to(images / "train/dog/1.png")
    splits = load(images, tmp_path)
    assert torch.equal(splits.train.x[0], splits.train.x[4])
    (images / "train/cat/gone.png").symlink_to(images / "train/dog/gone.png")
    with pytest.raises(ValueError, match=r"1 of 9 .*train/cat/gone\.png"):
        load(images, tmp_path)


def test_folder_itself_may_be_a_link(tmp_path: Path, images: Path) -> None:
    (tmp_path / "alias").symlink_to(images)
    assert list_folder(tmp_path / "alias") == list_folder(images)
    assert len(load(tmp_path / "alias", tmp_path).train) == 5


@pytest.mark.parametrize(("params", "message"), [({"on_error": "ignore"}, "expected stop or skip"), ({"size": 4}, "size=4, expected 8 to")])
def test_folder_parameters(tmp_path: Path, images: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(images, tmp_path, **params)


def test_folder_needs_a_path() -> None:
    with pytest.raises(ValueError, match=r'dataset "folder" needs path; write folder\[path=...\]'):
        open_dataset(Spec("folder"), Path("/nowhere"), REGISTRY)


# --- torchvision's sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_missing_set_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf'"{name}" is not in .*--download.*--data-root.*folder\[path=...\]'):
        open_dataset(Spec(name), tmp_path, REGISTRY)


@pytest.mark.parametrize("error", [RuntimeError("File not found or corrupted."), ConnectionError("no network")])
def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(root: Path, **kwargs: object) -> None:
        assert kwargs == {"train": True, "download": True}
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(OSError, match=rf'"cifar10" could not be .*{error}.*check the network.*--data-root'):
        open_dataset(Spec("cifar10"), tmp_path, REGISTRY, download=True)


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (2 * count, 32, 32, 3), dtype=np.uint8)
    names = [f"class {i}" for i in range(count)]
    calls = []

    def fake(root: Path, train: bool, download: bool) -> SimpleNamespace:
        calls.append((root, train, download))
        size = 2 * count if train else count
        return SimpleNamespace(data=data[:size], targets=list(range(count)) * (size // count), classes=names)

    monkeypatch.setattr(torchvision.datasets, name.upper(), fake)
    splits = open_dataset(Spec(name), tmp_path, REGISTRY)
    assert calls == [(tmp_path, True, False), (tmp_path, False, False)]
    assert np.array_equal(splits.train.x.permute(0, 2, 3, 1).numpy(), data)
    assert splits.train.y.dtype == torch.int64
    assert len(splits.test) == count
    assert splits.info.class_names == tuple(names)
    assert splits.info.hflip


def test_svhn_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1])  # unequal classes

    def fake(root: Path, split: str, download: bool) -> SimpleNamespace:
        size = {"train": 13, "test": 11}[split]
        return SimpleNamespace(data=data[:size], labels=labels[:size])

    monkeypatch.setattr(torchvision.datasets, "SVHN", fake)
    splits = open_dataset(Spec("svhn"), tmp_path, REGISTRY)
    assert np.array_equal(splits.train.x.numpy(), data)
    assert splits.train.y.bincount().tolist() == [1, 4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert len(splits.test) == 11
    assert not splits.info.hflip


def test_arrays_that_are_no_colour_images() -> None:
    with pytest.raises(ValueError, match=r"images of odd have shape \(2, 8, 8\), expected \(N, 3, H, W\)"):
        image_set(np.zeros((2, 8, 8), np.uint8), [0, 1], "odd", ["a", "b"], True)
