"""The pictures of the leaderboard page: strips of images, and the figures beside the tables."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmark import ImageSet
from benchmark.report.figures import draw
from benchmark.report.pictures import GAP, PictureKey, Pictures
from benchmark.report.sections import sections
from benchmark.storage.record import Record
from benchmark.storage.store import Store
from support.command_line import Call, run_tiny
from support.reports import PNG, is_rewritten, record, records, rendered, summarized
from support.sets import random_set


def pixels(png: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(png))).astype(np.int64)


@dataclass(frozen=True)
class Shown:
    """A store with the images of a clean set, of its poisoned set, and of both purified.

    Also the records of these four cells.
    """

    store: Store
    sets: Mapping[str, ImageSet]
    records: list[Record]

    def __iter__(self) -> Iterator[PictureKey]:
        return iter(Pictures(summarized(self.records), self.store))


@pytest.fixture
def shown(store: Store) -> Shown:
    def moved(data: ImageSet, level: int) -> ImageSet:
        return data.with_x((data.x.int() + level).clamp(0, 255).to(data.x.dtype))

    clean = random_set(20, 2, channels=1, height=16, width=12)
    sets = {
        "none": clean,
        "em": moved(clean, 9),
        "none+soft": moved(clean, 20),
        "em+soft": moved(clean, 30),
    }
    shas = {}
    for name, images in sets.items():
        store.publish_images(f"key-{name.replace('+', '-')}", images, {})
        shas[name] = store.manifest(f"key-{name.replace('+', '-')}")["files"]["images.safetensors"][
            "sha256"
        ]
    made = [
        record(
            attack,
            defense,
            0.5,
            artifacts={"poison": shas[attack]}
            | ({"purify": shas[f"{attack}+soft"]} if defense == "soft" else {}),
        )
        for attack in ("none", "em")
        for defense in ("none", "soft")
    ]
    return Shown(store, sets, made)


def test_strips_show_the_images_of_the_store(shown: Shown) -> None:
    strips = Pictures(summarized(shown.records), shown.store)
    assert (
        list(strips)
        == list(shown)
        == [("toy", attack, defense) for attack in ("em", "none") for defense in ("", "soft")]
    )
    clean, poisoned, purified = (
        shown.sets[name].x.squeeze(1).numpy().astype(np.int64) for name in ("none", "em", "em+soft")
    )
    drawn, after = pixels(strips["toy", "em", ""]), pixels(strips["toy", "em", "soft"])
    count = 3 * 32 * 32 // (16 * 12)
    assert drawn.shape == (count * (16 + GAP) - GAP, 3 * 12 + 2 * GAP, 4)
    for row in range(count):
        top, image = row * (16 + GAP), 20 * row // count
        columns = [
            drawn[top : top + 16, left : left + 12, :3] for left in (0, 12 + GAP, 2 * (12 + GAP))
        ]
        columns.append(after[top : top + 16, :, :3])
        change = 128 + 10 * (poisoned - clean)
        for column, images in zip(columns, (clean, poisoned, change, purified), strict=True):
            np.testing.assert_array_equal(column, np.repeat(images[image][..., None], 3, axis=2))
    assert (drawn[16, :, 3] == 0).all()  # the gaps are transparent
    with pytest.raises(KeyError):
        strips["toy", "em", "none"]


def test_large_images_are_shown_small(store: Store) -> None:
    store.publish_images("key", random_set(3, 2, height=130, width=100), {})
    sha = store.manifest("key")["files"]["images.safetensors"]["sha256"]
    strips = Pictures(summarized([record("none", "none", 0.5, artifacts={"poison": sha})]), store)
    # two images, every third pixel
    assert pixels(strips["toy", "none", ""]).shape == (2 * 44 + GAP, 3 * 34 + 2 * GAP, 4)


def test_where_images_are_missing_there_are_no_strips(shown: Shown) -> None:
    attacked = [item for item in shown.records if item.attack == "em"]
    assert list(Pictures(summarized(attacked), shown.store)) == []  # the clean images are not known
    assert list(
        Pictures(
            summarized([replace(item, ratio=0.5) for item in attacked] + shown.records[:2]),
            shown.store,
        )
    ) == [
        ("toy", "none", ""),
        ("toy", "none", "soft"),
    ]
    # then image i is not image i
    filtering = [replace(item, facts={"purify": {"kept": 0.9}}) for item in shown.records]
    assert {defense for _, _, defense in Pictures(summarized(filtering), shown.store)} == {""}
    file = shown.store.root / "artifacts" / "ke" / "key-em" / "images.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert list(shown) == [("toy", "none", ""), ("toy", "none", "soft")]
    shutil.rmtree(shown.store.root / "artifacts")
    assert list(shown) == []


def test_damaged_images_are_told(shown: Shown) -> None:
    strips = Pictures(summarized(shown.records), shown.store)
    for file in shown.store.root.glob("artifacts/*/*/images.safetensors"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(ValueError, match=r"images\.safetensors is damaged: .*; delete the folder"):
        strips["toy", "em", ""]


@pytest.mark.e2e
def test_run_and_report_show_pictures_while_the_images_are_there(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    def pictures() -> int:
        return (
            (tmp_path / "results" / "tiny" / "leaderboard.html")
            .read_text(encoding="utf-8")
            .count('<image id="picture-')
        )

    assert run_tiny(call, tiny).code == 0
    assert pictures() == 4  # of two attacks, and purified by grayscale
    shutil.rmtree(tmp_path / "results" / "store" / "artifacts")
    assert call("report", tiny).code == 0
    assert pictures() == 0


class Undrawn(dict[PictureKey, bytes]):
    """A mapping of pictures that the page must not look at."""

    def __getitem__(self, key: PictureKey) -> bytes:
        raise AssertionError("drawn for a report that stands")


def test_pictures_are_drawn_only_for_a_report_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plot in ("heatmap", "curves"):
        monkeypatch.setattr(f"benchmark.report.figures.{plot}.{plot}", lambda section: {"png": PNG})
    monkeypatch.setattr(draw, "figures", lambda table, sections: ({}, []))
    table, places = summarized(records()), [("toy", "em", ""), ("toy", "em", "slow")]
    assert is_rewritten(table, tmp_path, pictures=dict.fromkeys(places, PNG))
    assert not is_rewritten(table, tmp_path, pictures=Undrawn.fromkeys(places, b""))
    assert is_rewritten(table, tmp_path)  # there are no pictures any more


def test_a_picture_is_in_the_page_once_and_used_by_its_cells() -> None:
    text = rendered(
        records(), {("toy", "em", ""): PNG, ("toy", "em", "slow"): PNG, ("toy", "gone", ""): PNG}
    )
    assert text.count("data:image/png;base64,") == 3 + 2  # and a heat map for each section
    used = re.findall(r'<use href="#(picture-\d)"(?: x="(\d+)")?/>', text)
    em = [
        row
        for group in sections(summarized(records()))
        for row in group.rows
        for cell in row.cells
        if cell.column == "em" and cell.n
    ]
    # three images and gaps of 2 before it
    assert sorted(used) == [("picture-0", "")] * len(em) + [("picture-1", "102")]
    assert "There are no pictures" not in text
    assert "Pictures are shown at poison ratio 1 only" in rendered(
        [record("em", "soft", 0.5, ratio=0.5)], {("toy", "em", ""): PNG}
    )
