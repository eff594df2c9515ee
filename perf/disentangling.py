"""Compare the perturbation that a purifier recovers with the true one.

The script reads the store of a finished run. For each purified set that kept a perturbation (dvae
does) it prints:

- the mean cosine between what stage 1 found and the true change of each image;
- the same for a random tensor;
- the final rate of both stages in nats per position;
- the final mean square of the perturbation, which the method's acceptance tests bound;
- the PSNR of the purified images to the clean ones.

With --train it also trains a victim on the clean images plus the perturbation that stage 1 found,
and prints its accuracy on clean test images. The victim fails if stage 1 found the attack's
perturbation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _common import print_table, psnr
from torch import Tensor

from benchmark import Context, ImageSet
from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import ANCHOR, parse_spec
from benchmark.datasets._open import open_dataset
from benchmark.running.deterministic import set_up_torch
from benchmark.running.hardware import default_data_root
from benchmark.storage.store import Store
from benchmark.training.train import fit


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--results", type=Path, default=Path("results"), help="the folder of results of the run"
    )
    made.add_argument(
        "--train", action="store_true", help="train a victim on each clean set plus what was found"
    )
    return made


def main() -> None:
    """Print one row a purified set."""
    args = parser().parse_args()
    store = Store(args.results / "store")
    manifests = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(store.root.glob("artifacts/*/*/manifest.json"))
    ]
    poisons = {manifest["key"]: manifest for manifest in manifests if manifest["kind"] == "poison"}
    rows = []
    for manifest in manifests:
        if manifest["kind"] == "purify" and "perturbation.safetensors" in manifest["files"]:
            clean = _clean(store, poisons, manifest)
            if clean is not None:
                rows.append(
                    _row(store, manifest, clean.x)
                    + ((_train(store, manifest, clean),) if args.train else ())
                )
    header = [
        "purified",
        "cosine",
        "of noise",
        "rate 1",
        "rate 2",
        "mean square 1",
        "PSNR to clean",
    ]
    header += ["clean + found"] if args.train else []
    print_table("the perturbation that stage 1 found against the true one", header, rows)


def _clean(store: Store, poisons: dict[str, Any], manifest: dict[str, Any]) -> ImageSet | None:
    """Return the images before the attack; None if this set was not attacked."""
    poison = poisons[manifest["inputs"][0]]
    anchors = [
        other
        for other in poisons.values()
        if other["method"]["name"] == ANCHOR
        and other["identity"]["data"] == poison["identity"]["data"]
    ]
    if poison["method"]["name"] == ANCHOR or not anchors:
        return None
    return store.load_images(anchors[0]["key"])


def _row(store: Store, manifest: dict[str, Any], clean: Tensor) -> tuple[object, ...]:
    delta = (store.load_images(manifest["inputs"][0]).x.float() - clean.float()).flatten(1)
    found = store.load_kept(manifest["key"], "perturbation")["stage1"].float().flatten(1)
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    cosines = [
        torch.nn.functional.cosine_similarity(other, delta).mean().item()
        for other in (found, noise)
    ]
    facts = manifest["facts"]
    fidelity = psnr(store.load_images(manifest["key"]).x, clean).mean().item()
    return (
        manifest["label"],
        *cosines,
        facts["stage1_kl"],
        facts["stage2_kl"],
        facts["stage1_p"],
        f"{fidelity:.1f} dB",
    )


def _train(store: Store, manifest: dict[str, Any], clean: ImageSet) -> float:
    """Return the test accuracy of a victim on the clean images plus what stage 1 found.

    The victim and its protocol are those of the store.
    """
    cell = next(
        record
        for record in store.records()
        if record.artifacts.get("purify") == manifest["files"]["images.safetensors"]["sha256"]
    )
    protocol = get_protocol(cell.protocol).with_values(cell.protocol_spec)
    test = open_dataset(parse_spec(cell.dataset), default_data_root(), Registry()).test
    set_up_torch()
    found = store.load_kept(manifest["key"], "perturbation")["stage1"]
    ctx = Context(seed_axes=("perf", "disentangling"), precision=cell.precision)
    return fit(cell.victim, protocol, clean.perturb(found), ctx, test=test).test_acc[-1]


if __name__ == "__main__":
    main()
