"""Pictures of what attacks and defenses do to images, from the images in a store."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchmark.analysis.leaderboard import Summary
    from benchmark.storage.store import Store

SIDE = 64  # pixels; of larger images every second, third, ... pixel is shown
PIXELS = 3 * 32 * 32  # of one kind in a strip: three images of 32 pixels, or one of 56 or 64
GAP = 2  # pixels between images
GAIN = 10  # of the perturbation

PictureKey = tuple[str, str, str]  # data set, attack, defense, as the table labels them


class Pictures(Mapping[PictureKey, bytes]):
    """(data set, attack, defense) -> PNG.

    A picture is drawn when it is asked for, so that a report that stands costs nothing.

    With the defense ``""`` it is the attack's: clean, poisoned, and ten times the perturbation on
    grey, side by side, one row an image. With a defense it is the same images purified; a defense
    that does not purify has none.

    There are pictures where the store has the images: those of attack or defense, and the clean
    ones, which are the poison of the anchor ``none``. What is shown is poisoned whole, so records
    of other poison ratios take no part. Of several craft seeds it is the first.

    Args:
        summary: of the long table.
        store: where the images are, found by the sha256 in the records.
    """

    def __init__(self, summary: Summary, store: Store) -> None:
        self._store, self._found = store, dict[PictureKey, tuple[str, ...]]()
        table = summary.table
        shown = table[
            ~table["superseded"] & (table["status"] == "ok") & (table["ratio"] == 1)
        ].sort_values(["craft_seed", "key"])
        keys = store.image_keys() if len(shown) else {}
        rows: list[tuple[Any, dict[str, str]]] = [
            (
                row,
                {
                    name: keys[sha]
                    for name, sha in json.loads(str(row.artifacts)).items()
                    if sha in keys
                },
            )
            for row in shown.itertuples(index=False)
        ]
        clean = {
            row.dataset_spec: images["poison"]
            for row, images in rows
            if row.is_clean and "poison" in images
        }
        for row, images in rows:
            if row.dataset_spec not in clean or "poison" not in images:
                continue
            self._found.setdefault(
                (row.dataset, row.attack, ""), (clean[row.dataset_spec], images["poison"])
            )
            drops_images = (
                json.loads(row.facts).get("purify", {}).get("kept", 1) != 1
            )  # then image i is another one
            if "purify" in images and not drops_images:
                self._found.setdefault((row.dataset, row.attack, row.defense), (images["purify"],))

    def __iter__(self) -> Iterator[PictureKey]:
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, key: PictureKey) -> bytes:
        """The PNG.

        Raises:
            KeyError: if there is no picture.
            OSError, ValueError: if images of the store cannot be read.
        """
        sets = [_sample(self._store, artifact) for artifact in self._found[key]]
        if len(sets) == 2:
            clean, poisoned = sets
            change = 128 + GAIN * (poisoned.astype(np.int16) - clean)
            sets.append(change.clip(0, 255).astype(np.uint8))
        return _png(np.concatenate([_column(images) for images in sets], axis=1)[:, GAP:])


def _sample(store: Store, artifact: str) -> NDArray[np.uint8]:
    """A few images, uint8 (M, H, W, 3), at most ``SIDE`` pixels high and wide."""
    first = store.sample_images(artifact, 1)
    step = -(-max(first.shape[2:]) // SIDE)
    height, width = (-(-side // step) for side in first.shape[2:])
    images = store.sample_images(artifact, max(1, PIXELS // (height * width)))[:, :, ::step, ::step]
    return np.broadcast_to(images, (len(images), 3, height, width)).transpose(
        0, 2, 3, 1
    )  # grey images have one channel


def _column(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images one below the other, transparent gaps above and to the left, uint8 (height, width,
    RGBA).
    """
    opaque = np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    framed = np.pad(opaque, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)))
    return framed.reshape(-1, *framed.shape[2:])[GAP:]


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return file.getvalue()
