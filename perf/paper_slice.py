"""Compute one attack's column at the papers' scale, a slice at a time.

    python perf/paper_slice.py lsp --data cifar10-jpeg.zip --results /tmp/paper --out $OUT/paper
    python run_benchmark.py merge $OUT/paper --results results/baselines   # afterwards, at home

The column is the attack and clean data, undefended and behind grayscale, JPEG and D-VAE: 50,000
images, the victim resnet18, the protocol std60, and every method as published. Cells that tell most
come first, D-VAE last. At the end of ``--minutes`` the run is interrupted as by Ctrl-C: finished
stages stay, and the same command goes on with the rest. ``--out`` gets the records without images,
a few kB each.

The last line is JSON: the accuracy of each finished cell, and the missing cells.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.catalogue.registry import ROOT, Registry
from benchmark.storage.store import Store

ORDER = ("lsp", "ops", "em", "tap", "ar", "rem", "sep", "ntga")  # of the slices
CHEAP, COSTLY = ("none", "grayscale", "jpeg"), ("none", "dvae")
# Passes of one image a second through the network, forward and backward, in bf16 on an H200. Nobody
# has measured them with this code.
ASSUMED = {"resnet18": 30_000, "dvae": 8_000}
IMAGES, EPOCHS = 50_000, 60  # of std60, and of each of D-VAE's two stages
LAST_SECONDS = 20.0  # to stop the workers and to copy records


@dataclass(frozen=True)
class Slice:
    """One attack's column: its suite, and how it is run."""

    attack: str
    suite: Mapping[str, Any]
    results: Path
    options: tuple[str, ...]

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Attack and defense of each cell, in the order in which they are computed."""
        attacks, defenses = (self.attack, "none"), (*CHEAP, COSTLY[-1])
        return [(attack, defense) for defense in defenses for attack in attacks]

    def command(self, defenses: Sequence[str]) -> list[str]:
        """Return the command line that computes the cells of some defenses."""
        file = self.results / f"{self.suite['name']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(dict(self.suite)), encoding="utf-8")
        run = [sys.executable, str(ROOT / "run_benchmark.py"), "run", str(file)]
        chosen = ["--defenses", ",".join(defenses), "--results", str(self.results)]
        return [*run, *chosen, *self.options]

    def accuracies(self) -> dict[tuple[str, str], float]:
        """Return the accuracy of each cell that is done."""
        store = Store(self.results / "store")
        names = {(attack.partition("[")[0], defense) for attack, defense in self.cells}
        found = {}
        for record in store.records():
            cell = record.attack.partition("[")[0], record.defense.partition("[")[0]
            if cell in names and record.test_acc is not None:
                found[cell] = record.test_acc
        return found


def paper_suite(attack: str, data: Path) -> dict[str, Any]:
    """Return the suite of an attack's column as published, on a folder of images."""
    return {
        "name": f"paper-{attack}",
        "about": f"{attack} at the papers' scale.",
        "datasets": f"folder[path={data}]",
        "attacks": ["none", attack],
        "defenses": [*CHEAP, COSTLY[-1]],
        "victims": "resnet18",
        "protocols": "std60",
    }


def toy_suite(attack: str) -> dict[str, Any]:
    """Return the same column with everything tiny, to try the script."""
    registry = Registry()
    toys = {("attack", attack), ("defense", "dvae")}
    parameters = {name: dict(registry.load(kind, name).toy) for kind, name in toys}
    return {
        **paper_suite(attack, Path()),
        "datasets": "embedded[size=16,scenes=1,train_per_class=8,test_per_class=4]",
        "victims": "resnet8_w16_s2",
        "protocols": "quick",
        "protocol_values": {"epochs": 1, "batch_size": 16},
        "parameters": {name: values for name, values in parameters.items() if values},
    }


def unpacked(data: Path, into: Path) -> Path:
    """Return the folder that holds ``train`` and ``test``; a zip is unpacked into ``into`` once."""
    if data.suffix == ".zip":
        mark = into / "unpacked"
        if not mark.exists():
            with zipfile.ZipFile(data) as archive:
                archive.extractall(into)  # which keeps names inside of ``into``
            mark.touch()
        data = into
    for folder in (data, *(path for path in sorted(data.glob("*")) if path.is_dir())):
        if (folder / "train").is_dir():
            return folder
    raise SystemExit(f"{data} holds no folder train; expected train/<class>/* and test/<class>/*")


def estimate(cells: int) -> str:
    """Return the expected device seconds of a column, from assumed speeds."""
    victim = EPOCHS * IMAGES / ASSUMED["resnet18"]
    dvae = 2 * EPOCHS * IMAGES / ASSUMED["dvae"]
    return (
        f"{cells} victims of {victim:.0f} s, 2 fits of dvae of {dvae:.0f} s, and the attack: about "
        f"{(cells * victim + 2 * dvae) / 60:.0f} minutes of one GPU, if it passes "
        f"{ASSUMED['resnet18']:,} images a second through resnet18 and {ASSUMED['dvae']:,} through "
        "dvae. Both speeds are assumed. Clean cells serve all attacks"
    )


def run_until(command: Sequence[str], deadline: float) -> bool:
    """Run a command; interrupt it at the deadline. Tell whether it came to its end."""
    process = subprocess.Popen(command)
    try:
        code = process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(LAST_SECONDS)
        return False
    if code:
        print(f"the run ended with exit code {code}; what it finished stays", flush=True)
    return code == 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("attack", choices=ORDER, help="in the order in which slices are wanted")
    made.add_argument("--data", type=Path, help="zip or folder with train/<class>/* and test/...")
    made.add_argument("--results", type=Path, default=Path("paper"))
    made.add_argument("--out", type=Path, help="gets the records; default RESULTS/records")
    made.add_argument("--minutes", type=float, default=11.5)
    made.add_argument("--slots-per-gpu", type=int, default=3, help="processes that share the GPU")
    made.add_argument("--data-root", type=Path, help="cache of decoded images")
    made.add_argument("--plan", action="store_true", help="show cells and estimate; run nothing")
    made.add_argument("--toy", action="store_true", help="tiny images, victim and methods")
    return made


def main() -> None:
    """Run the slice."""
    deadline = time.monotonic()
    args = parser().parse_args()
    deadline += 60 * args.minutes - LAST_SECONDS
    if not args.toy and args.data is None:
        raise SystemExit("name the images with --data, or try the script with --toy")
    if args.toy:
        suite = toy_suite(args.attack)
    else:
        suite = paper_suite(args.attack, unpacked(args.data, args.results / "images").resolve())
    options = ["--slots-per-gpu", str(args.slots_per_gpu)]
    if args.data_root:
        options += ["--data-root", str(args.data_root)]
    column = Slice(args.attack, suite, args.results, tuple(options))
    if args.plan:
        print("\n".join(f"{attack} + {defense}" for attack, defense in column.cells))
        print(estimate(len(column.cells)))
        return
    for defenses in (CHEAP, COSTLY):
        if not run_until(column.command(defenses), deadline):
            break
    done = column.accuracies()
    if done:
        out = args.out or args.results / "records"
        merge = ["merge", str(args.results), "--results", str(out)]
        subprocess.run([sys.executable, str(ROOT / "run_benchmark.py"), *merge], check=True)
    missing = [f"{attack} + {defense}" for attack, defense in column.cells]
    missing = [name for name in missing if tuple(name.split(" + ")) not in done]
    accuracies = {f"{attack} + {defense}": acc for (attack, defense), acc in sorted(done.items())}
    print(json.dumps({"slice": args.attack, "done": accuracies, "missing": missing}))


if __name__ == "__main__":
    main()
