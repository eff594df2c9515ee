"""How well does a purifier's recovered perturbation match the true one? Reads the store of a finished run; trains nothing.

For each purified set that kept a perturbation (dvae does): the mean cosine between what stage 1 found and the true change of
each image, the same for a random tensor, the final rate of both stages in nats per position, and the final mean square of the
perturbation, which the method's acceptance tests bound.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _common import print_table
from torch import Tensor

from benchmark.plan import ANCHOR
from benchmark.store import Store


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=Path, default=Path("results"), help="the folder of results of the run")
    return made


def main() -> None:
    """Prints one row a purified set."""
    store = Store(parser().parse_args().results / "store")
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(store.root.glob("artifacts/*/*/manifest.json"))]
    poisons = {manifest["key"]: manifest for manifest in manifests if manifest["kind"] == "poison"}
    rows = []
    for manifest in manifests:
        if manifest["kind"] == "purify" and "perturbation.safetensors" in manifest["files"]:
            clean = _clean(store, poisons, manifest)
            if clean is not None:
                rows.append(_row(store, manifest, clean))
    header = ("purified", "cosine", "of noise", "rate 1", "rate 2", "mean square 1")
    print_table("the perturbation that stage 1 found against the true one", header, rows)


def _clean(store: Store, poisons: dict[str, Any], manifest: dict[str, Any]) -> Tensor | None:
    """The images before the attack; None if this set was not attacked."""
    poison = poisons[manifest["inputs"][0]]
    anchors = [other for other in poisons.values() if other["method"]["name"] == ANCHOR and other["info"] == poison["info"]]
    if poison["method"]["name"] == ANCHOR or not anchors:
        return None
    return store.load_images(anchors[0]["key"]).x


def _row(store: Store, manifest: dict[str, Any], clean: Tensor) -> tuple[object, ...]:
    delta = (store.load_images(manifest["inputs"][0]).x.float() - clean.float()).flatten(1)
    found = store.load_kept(manifest["key"], "perturbation")["stage1"].float().flatten(1)
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    cosines = [torch.nn.functional.cosine_similarity(other, delta).mean().item() for other in (found, noise)]
    facts = manifest["facts"]
    return (manifest["label"], *cosines, facts["stage1_kl"], facts["stage2_kl"], facts["stage1_p"])


if __name__ == "__main__":
    main()
