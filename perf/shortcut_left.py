"""Measure how much of a one-pixel shortcut a purifier leaves.

    python perf/shortcut_left.py --results results [--attack ops]

The script reads the store of a finished run with the attack ``ops``, which paints one pixel a
class. It looks at each set made of such a poison: the poison itself, each purified set, and D-VAE's
set after stage 1. It prints two figures a set, averaged over classes:

- the *contrast* at that pixel: how far the pixel stands out from the pixels around it towards the
painted colour, in levels, for images of the class less those of the others;
- the *AUC* of telling the class by this one number; 0.5 means that nothing is left.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from _common import print_table
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import ImageSet, truncate_uint8
from benchmark.storage.store import Store

Pixel = tuple[int, int, Tensor]  # row, column, colour as -1 or 1 a channel


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--results", type=Path, default=Path("results"), help="the folder of results of the run"
    )
    options.add_argument("--attack", default="ops", help="the one-pixel attack")
    return options


def main() -> None:
    """Print one row a set."""
    args = parser().parse_args()
    store = Store(args.results / "store")
    manifests = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(store.root.glob("artifacts/*/*/manifest.json"))
    ]
    rows: list[tuple[object, ...]] = []
    for poison in manifests:
        if poison["kind"] != "poison" or poison["method"]["name"] != args.attack:
            continue
        data = store.load_images(poison["key"])
        pixels = painted(data)
        rows.append((poison["label"], *left(data.x, data.y, pixels)))
        for made in manifests:
            if made["kind"] != "purify" or made["inputs"] != [poison["key"]]:
                continue
            if "perturbation.safetensors" in made["files"]:
                found = store.load_kept(made["key"], "perturbation")["stage1"].float()
                rows.append(
                    (
                        f"{made['label']}, after stage 1",
                        *left(truncate_uint8(data.x / 255 - found), data.y, pixels),
                    )
                )
            rows.append((made["label"], *left(store.load_images(made["key"]).x, data.y, pixels)))
    if not rows:
        raise SystemExit(
            f'{store.root} holds no poison of "{args.attack}"; run a suite with it first'
        )
    print_table("what is left of the painted pixel", ("set", "contrast", "AUC"), rows)


def painted(data: ImageSet) -> dict[int, Pixel]:
    """Find the pixel of each class that is the same in all its images."""
    pixels: dict[int, Pixel] = {}
    for label in data.y.unique().tolist():
        x = data.x[data.y == label]
        # share of images (H, W) with the class's usual value; elsewhere a rounded or clipped pixel
        # is seldom the same.
        same = (x == x.mode(0).values).all(1).float().mean(0)
        row, column = divmod(int(same.argmax()), data.info.width)
        pixels[label] = (row, column, (x.mode(0).values[:, row, column] > 127).float() * 2 - 1)
    return pixels


def left(x: Tensor, y: Tensor, pixels: dict[int, Pixel]) -> tuple[float, float]:
    """Return contrast in levels and AUC in [0, 1], both averaged over classes.

    The images are uint8 (N, C, H, W).
    """
    contrast, auc = [], []
    for label, (row, column, colour) in pixels.items():
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        patch = padded[:, :, row : row + 3, column : column + 3].float()  # (N, C, 3, 3)
        ring = (patch.sum((2, 3)) - patch[:, :, 1, 1]) / 8
        score = ((patch[:, :, 1, 1] - ring) * colour).mean(1)  # (N,)
        own, others = score[y == label], score[y != label].sort().values
        contrast.append(float(own.mean() - others.mean()))
        below, upto = (
            torch.searchsorted(others, own, right=right).double().mean() for right in (False, True)
        )
        auc.append(float(below + upto) / 2 / len(others))
    return sum(contrast) / len(contrast), sum(auc) / len(auc)


if __name__ == "__main__":
    main()
