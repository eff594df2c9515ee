"""Measures the peak memory of a worker process on 50,000 images of 32x32 pixels, stage by stage.

    python perf/memory.py [--images 50000] [--batch 64]

One worker does what a run would have it do: poison with ``lsp`` and with ``ops``, purify with ``jpeg``, train a victim for one
epoch. Loading the data set, verifying the poison and writing the result are included. What is read is the kernel's VmHWM,
reset at the start of each stage; a worker keeps some memory from stage to stage, as in a real run. Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmark.datasets import fingerprint
from benchmark.hardware import native_precision
from benchmark.plan import Stage, make_plan
from benchmark.registry import Registry
from benchmark.scheduler import Machine, run_plan
from benchmark.store import Store
from benchmark.suite import load_suite

TARGET = 1.5  # GiB
PLUGIN = Path(__file__).resolve().parent / "random_images.py"
PEAKS = "peaks.jsonl"  # in the store's folder


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--images", type=int, default=50_000, help="training images; a fifth as many are for testing")
    options.add_argument("--batch", type=int, default=64, help="images a training step")
    options.add_argument("--victim", default="resnet10_w16")
    return options


def measured_stage(
    stage: Stage, store: Store, machine: Machine, on_progress: Callable[[float, str], None], on_log: Callable[[str], None]
) -> None:
    """``run_stage``, and a line with the worker's VmHWM after it: the stage's own record is made before it is written."""
    from benchmark.stages import peak_memory_mb, run_stage

    run_stage(stage, store, machine, on_progress, on_log)
    with (store.root / PEAKS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"label": stage.label, "gib": peak_memory_mb() / 1024}) + "\n")


def stages(options: argparse.Namespace, registry: Registry, data: Path) -> list[Stage]:
    """Both poisons, JPEG on the first, and a victim on its result."""
    axes = {
        "datasets": [f"random_images[train={options.images},test={options.images // 5}]"],
        "attacks": ["lsp", "ops"],
        "defenses": ["none", "jpeg"],
        "victims": [options.victim],
        "protocols": ["lite"],
    }
    suite = load_suite("cifar10-lite", registry, axes, ["protocol.epochs=1", f"protocol.batch_size={options.batch}"])
    plan = make_plan(suite, registry, lambda spec: fingerprint(spec, data, registry), native_precision("cpu"))
    cell = next(cell for cell in plan.cells if str(cell.attack) == "lsp" and str(cell.defense) == "jpeg")
    return [stage for stage in plan.stages if stage.kind == "poison" or stage.key in cell.stages]


def main() -> None:
    options = parser().parse_args()
    registry = Registry(plugins=(PLUGIN,))
    with tempfile.TemporaryDirectory(prefix="uebench-perf-") as folder:
        data = Path(folder) / "data"
        store = Store(Path(folder) / "store")
        wanted = stages(options, registry, data)
        machine = Machine(data_root=str(data), plugins=(str(PLUGIN),))
        outcome = run_plan(wanted, store, machine, slots=("cpu",), runner="memory:measured_stage")
        if outcome.exit_code:
            raise SystemExit(f"not measured: {outcome.summary} {[failure.error for failure in outcome.failures]}")
        lines = (store.root / PEAKS).read_text(encoding="utf-8").splitlines()
    from _common import machine as about
    from _common import print_table, verdict

    peaks = [json.loads(line) for line in lines]
    rows = [(peak["label"], peak["gib"], "") for peak in peaks]
    most = max(peak["gib"] for peak in peaks)
    print_table(
        f"one worker, {options.images:,} images of 32x32, batch {options.batch}; {about()}",
        ("", "peak GiB", ""),
        [*rows, ("the most", most, verdict(most, TARGET))],
    )


if __name__ == "__main__":
    main()
