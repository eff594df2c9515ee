"""Draw what attacks and defenses do to images, from the images in a store."""

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

SIDE = 64  # pixels; larger images are shown by every second, third, ... pixel
PIXELS = 3 * 32 * 32  # of one column: three images of 32 pixels, or one of 56 or 64
GAP = 2  # pixels between images
GAIN = 10  # by which the perturbation is multiplied

PictureKey = tuple[str, str, str]  # data set, attack, defense, as the table labels them


class Pictures(Mapping[PictureKey, bytes]):
    """Pictures by (data set, attack, defense), as PNG, each drawn when it is read.

    With the defense ``""`` the picture shows the attack: clean images, poisoned ones, and ten times
    the perturbation on grey, side by side, one row an image. With a defense it shows the same
    images purified; a defense that does not purify has no picture.

    A picture exists if the store has the images of the attack or the defense, and the clean images,
    which are the poison of the anchor ``none``. Only records with the poison ratio 1 are shown, and
    only their first craft seed.

    Args:
        summary: summary of the long table.
        store: the store with the images, which the records name by their sha256.
    """

    def __init__(self, summary: Summary, store: Store) -> None:
        self._store = store
        self._artifacts: dict[PictureKey, tuple[str, ...]] = {}
        table = summary.table
        is_shown = ~table["superseded"] & (table["status"] == "ok") & (table["ratio"] == 1)
        shown = table[is_shown].sort_values(["craft_seed", "key"])
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
            self._artifacts.setdefault(
                (row.dataset, row.attack, ""), (clean[row.dataset_spec], images["poison"])
            )
            # if the defense dropped images, image i is another one
            drops_images = json.loads(row.facts).get("purify", {}).get("kept", 1) != 1
            if "purify" in images and not drops_images:
                place = row.dataset, row.attack, row.defense
                self._artifacts.setdefault(place, (images["purify"],))

    def __iter__(self) -> Iterator[PictureKey]:
        return iter(sorted(self._artifacts))

    def __len__(self) -> int:
        return len(self._artifacts)

    def __getitem__(self, key: PictureKey) -> bytes:
        """Draw the PNG.

        Raises:
            KeyError: if there is no picture.
            OSError, ValueError: if images of the store cannot be read.
        """
        sets = [_sample(self._store, artifact) for artifact in self._artifacts[key]]
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
    # grey images have one channel
    coloured = np.broadcast_to(images, (len(images), 3, height, width))
    return coloured.transpose(0, 2, 3, 1)


def _column(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images one below the other, uint8 (height, width, RGBA).

    Transparent gaps lie between the images and to their left.
    """
    opaque = np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    framed = np.pad(opaque, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)))
    return framed.reshape(-1, *framed.shape[2:])[GAP:]


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return file.getvalue()
