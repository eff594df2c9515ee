"""The data set folder: a user's own images of all forms, and the errors for unusable ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.api import Context
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.data import Splits
from benchmark.datasets._listing import list_folder, listing_digest
from benchmark.datasets._open import cached_facts, fingerprint, open_dataset
from benchmark.datasets.folder import decode

REGISTRY = Registry()


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, cat and dog, of 3 and 2 training images and a test image each."""
    top = tmp_path / "images"
    for seed, name in enumerate(
        (
            "train/dog/1",
            "train/dog/2",
            "train/cat/2",
            "train/cat/10",
            "train/cat/1",
            "test/cat/1",
            "test/dog/1",
        )
    ):
        file = top / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(file)
    return top


def folder(top: Path, **params: Any) -> Spec:
    return Spec("folder", {"path": str(top), "size": 16, **params})


def load(top: Path, tmp_path: Path, ctx: Context | None = None, **params: Any) -> Splits:
    return open_dataset(folder(top, **params), tmp_path / "root", REGISTRY, ctx)


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
    assert cached_facts(folder(images), images, REGISTRY) is not None
    assert len(first.train) == 5


def test_folder_that_changes_while_it_is_read(tmp_path: Path, images: Path) -> None:
    def meddle(done: float, note: str) -> None:
        picture(7).save(images / "train/cat/3.png")

    ctx = Context()
    ctx.track = lambda items, total, note="": (meddle(0, ""), *items)[1:]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ValueError, match="changed while they were read; run again"):
        load(images, tmp_path, ctx)


def test_folder_reports_progress(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    levels = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]] * 4, np.uint16).repeat(
        2, 1
    )
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
    message = (
        r"2 of 9 images in .*images cannot be read: train/cat/0\.png \(cannot identify.*\); "
        r"test/dog/2\.png \(.*on_error=skip"
    )
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
    assert (
        splits.notes == load(images, tmp_path, on_error="skip").notes == {"left_out": 2}
    )  # from the cache, too
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
    assert any(
        "2 files" in line and "train/cat/notes.csv, train/readme.txt" in line for line in lines
    )


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"nothing-here does not exist; folder\[path=...\] expects a folder with "
        r"train/<class>",
    ):
        load(tmp_path / "nothing-here", tmp_path)


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"set\.zip is not a folder"):
        load(tmp_path / "set.zip", tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError,
        match=r"empty/train holds no classes; expected one folder of images a class, "
        r"train/<class>/\*",
    ):
        load(tmp_path / "empty", tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "flat/train").mkdir(parents=True)
    picture(0).save(tmp_path / "flat/train/1.png")
    with pytest.raises(
        ValueError, match=r"train holds no classes \(it holds files, but no folders\)"
    ):
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
    with pytest.raises(
        ValueError, match=r'holds one class \("cat"\); classification needs at least 2'
    ):
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
    with pytest.raises(
        ValueError,
        match="train/cat/more is a folder inside a class; put images directly into train/cat",
    ):
        load(images, tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path, images: Path) -> None:
    picture(0).save(tmp_path / "images-private.png")  # begins like the folder's own name
    (images / "train/cat/link.png").symlink_to(tmp_path / "images-private.png")
    with pytest.raises(
        ValueError,
        match=r"train/cat/link\.png is a link to .*images-private\.png, "
        r"outside the data set's folder",
    ):
        load(images, tmp_path)


def test_links_to_folders_are_refused(tmp_path: Path, images: Path) -> None:
    (images / "train/loop").symlink_to(images / "train")
    with pytest.raises(ValueError, match="train/loop is a link to a folder"):
        load(images, tmp_path)


def test_links_within_the_folder_are_read_and_dangling_ones_named(
    tmp_path: Path, images: Path
) -> None:
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


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"on_error": "ignore"}, "expected stop or skip"),
        ({"size": 4}, "size=4, expected 8 <= size <= 1024"),
    ],
)
def test_folder_parameters(
    tmp_path: Path, images: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(images, tmp_path, **params)


def test_folder_needs_a_path() -> None:
    with pytest.raises(ValueError, match=r'dataset "folder" needs path; write folder\[path=...\]'):
        open_dataset(Spec("folder"), Path("/nowhere"), REGISTRY)


def test_fingerprint_of_a_cached_set_needs_no_torch(tmp_path: Path, images: Path) -> None:
    spec = folder(images)
    built = fingerprint(spec, tmp_path / "root", REGISTRY)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from benchmark.datasets._open import fingerprint\n"
        "from benchmark.catalogue.registry import Registry\n"
        "from benchmark.catalogue.spec import Spec\n"
        f"spec = Spec('folder', {dict(spec.params)!r})\n"
        f"print(fingerprint(spec, Path({str(tmp_path / 'root')!r}), Registry()))\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'slow import'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == built
