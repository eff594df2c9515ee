"""Measure the peak memory of a worker process, stage by stage.

    python perf/memory.py [--images 50000] [--batch 64]
    python perf/memory.py --attacks [NAME ...] [--images 10000] [--size 224]

By default one worker does what a run would have it do on 50,000 images of 32x32 pixels: poison with
``lsp`` and with ``ops``, purify with ``jpeg``, train a victim for one epoch. With ``--attacks``,
one worker for each attack (all by default) poisons 10,000 images of 224x224 pixels. It takes the
few steps of the contract tests and looks through a network of one layer, so that the script
measures what the attack itself holds. A real network's activations add to that, in proportion to
its batch.

The figures include loading the data set, verifying the poison and writing the result. The script
reads the kernel's VmHWM, reset at the start of each stage; a worker keeps some memory from stage to
stage, as in a real run. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec, Value
from benchmark.datasets._open import fingerprint
from benchmark.planning.jobs import PoisonJob
from benchmark.planning.plan import make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import load_suite
from benchmark.running.hardware import native_precision
from benchmark.running.scheduler.outcome import Machine
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.store import Store

if TYPE_CHECKING:
    from torch import Tensor

TARGET, LARGE_TARGET = 1.5, 4.0  # GiB
HERE = Path(__file__).resolve().parent
PLUGINS = (HERE / "random_images.py", HERE / "linear_net.py")
PEAKS = "peaks.jsonl"  # in the store's folder
# of attacks that have these parameters
SMALL_SURROGATE = {"surrogate": "linear_net", "surrogate_epochs": 2}
# of ntga
BLOCK: dict[str, Value] = {"steps": 1, "cover": "train", "validation_images": 64}
# fewer steps, for attacks that would take hours at this size and no more memory
SHORT: dict[str, list[dict[str, Value]]] = {
    "aap": [{"steps": 1}],
    "aue": [{"epochs": 1, "noise_steps": 1}],
    # one block of 500 images
    "ntga": [
        {**BLOCK, "kernel": "fnn", "holdout": 0.95},
        {**BLOCK, "kernel": "cnn", "holdout": 0.95},
    ],
}
TILES = 3  # of a kernel matrix, in each direction


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument(
        "--attacks",
        nargs="*",
        metavar="NAME",
        help="measure these attacks on large images; without names, all",
    )
    options.add_argument(
        "--images",
        type=int,
        help="training images, 50000, or 10000 with --attacks; a fifth as many are for testing",
    )
    options.add_argument(
        "--size", type=int, default=224, help="side of an image in pixels, with --attacks"
    )
    options.add_argument(
        "--batch", type=int, default=64, help="images a training step, without --attacks"
    )
    options.add_argument("--victim", default="resnet10_w16", help="without --attacks")
    return options


def measured_stage(
    stage: Stage,
    store: Store,
    machine: Machine,
    on_progress: Callable[[float, str], None],
    on_log: Callable[[str], None],
) -> None:
    """Run a stage as ``run_stage`` does, and append a line with the worker's VmHWM.

    The stage makes its own record before it writes it, hence this measure after the end.
    """
    from benchmark.running.environment import peak_memory_mb
    from benchmark.running.stages import run_stage
    from benchmark.training import surrogate

    surrogate.LEARNED = -math.inf  # a network of one layer need not learn in order to be measured
    job = stage.job
    if isinstance(job, PoisonJob) and job.attack.spec.params.get("kernel") == "cnn":
        _few_tiles()
    run_stage(stage, store, machine, on_progress, on_log)
    with (store.root / PEAKS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"label": stage.label, "gib": peak_memory_mb() / 1024}) + "\n")


def _few_tiles() -> None:
    """Make ``ntga`` compute the first tiles of a kernel matrix only, and make up the others.

    The others take hours and no more memory.
    """
    from attacks import _ntk

    chunks, gram = _ntk.chunks, _ntk.gram

    def partly(kernel: _ntk.Kernel, a: Tensor, b: Tensor) -> Tensor:
        made = gram(kernel, a, b).nan_to_num_().clamp_(0, 1)
        if a is b:
            made.diagonal().add_(len(a))  # makes it positive definite
        return made

    _ntk.chunks = lambda count, size: islice(chunks(count, size), TILES)
    _ntk.gram = partly


@dataclass(frozen=True)
class Bench:
    """The place of the measurement: a registry with the plugins, a folder for data and results."""

    registry: Registry
    folder: Path

    def peaks(
        self, axes: dict[str, Sequence[str]], settings: list[str], wanted: Callable[[Stage], bool]
    ) -> list[tuple[str, float]]:
        """Run the wanted stages of a suite in one new worker; return label and GiB of each.

        The stages come in the order in which they ended.

        Raises:
            SystemExit: if one of them fails.
        """
        data, store = (
            self.folder / "data",
            Store(Path(tempfile.mkdtemp(prefix="store-", dir=self.folder))),
        )
        suite = load_suite("cifar10-lite", self.registry, axes, settings)
        plan = make_plan(
            suite,
            self.registry,
            lambda spec: fingerprint(spec, data, self.registry),
            native_precision("cpu"),
        )
        machine = Machine(data_root=str(data), plugins=tuple(map(str, PLUGINS)))
        stages = [stage for stage in plan.stages if wanted(stage)]
        outcome = run_plan(stages, store, machine, slots=("cpu",), runner="memory:measured_stage")
        if outcome.exit_code:
            raise SystemExit(
                f"not measured: {outcome.summary} {[failure.error for failure in outcome.failures]}"
            )
        lines = (store.root / PEAKS).read_text(encoding="utf-8").splitlines()
        return [(peak["label"], peak["gib"]) for peak in map(json.loads, lines)]


def a_run(bench: Bench, options: argparse.Namespace) -> list[tuple[str, float]]:
    """Measure both poisons, JPEG on one of them, and a victim on its result."""
    images = options.images or 50_000
    axes = {
        "datasets": [f"random_images[train={images},test={images // 5}]"],
        "attacks": ["lsp", "ops"],
        "defenses": ["none", "jpeg"],
        "victims": [options.victim],
        "protocols": ["lite"],
    }
    settings = ["protocol.epochs=1", f"protocol.batch_size={options.batch}"]
    kinds = {"lsp": ("purify", "train"), "ops": ()}  # beside the poison

    def wanted(stage: Stage) -> bool:
        attack = next(name for name in kinds if name in stage.label)
        return stage.kind == "poison" or (stage.kind in kinds[attack] and "jpeg" in stage.label)

    return bench.peaks(axes, settings, wanted)


def an_attack(
    bench: Bench, name: str, short: Mapping[str, Value], options: argparse.Namespace
) -> list[tuple[str, float]]:
    """Measure the poison of one attack, and its surrogate's training where it has one."""
    images = options.images or 10_000
    card = bench.registry.card("attack", name)
    toy = dict(bench.registry.load("attack", name).toy)
    toy.update(short)
    toy.update({key: value for key, value in SMALL_SURROGATE.items() if key in card.params})
    axes = {
        "datasets": [
            f"random_images[train={images},test={images // 5},size={options.size},hint=80]"
        ],
        "attacks": [str(Spec(name, toy))],
        "defenses": ["none"],
        "victims": ["linear_net"],
        "protocols": ["lite"],
    }
    found = bench.peaks(axes, [], lambda stage: stage.kind in ("surrogate", "poison"))
    said = Spec(name, {key: value for key, value in short.items() if key in ("kernel", "holdout")})
    return [
        (f"{said}, {'surrogate' if i < len(found) - 1 else 'poison'}", gib)
        for i, (_, gib) in enumerate(found)
    ]


def main() -> None:
    options = parser().parse_args()
    registry = Registry(plugins=PLUGINS)
    with tempfile.TemporaryDirectory(prefix="uebench-perf-") as folder:
        bench = Bench(registry, Path(folder))
        if options.attacks is None:
            rows, target, what = (
                a_run(bench, options),
                TARGET,
                f"{options.images or 50_000:,} images of 32x32, batch {options.batch}",
            )
        else:
            names = options.attacks or [
                name for name in sorted(registry.cards("attack")) if name not in ("none", "file")
            ]
            rows = [
                row
                for name in names
                for short in SHORT.get(name, [{}])
                for row in an_attack(bench, name, short, options)
            ]
            target = LARGE_TARGET
            what = f"{options.images or 10_000:,} images of {options.size}x{options.size}"
    from _common import machine as about
    from _common import print_table, verdict

    most = max(gib for _, gib in rows)
    table = [*((label, gib, "") for label, gib in rows), ("the most", most, verdict(most, target))]
    print_table(f"one worker, {what}; {about()}", ("", "peak GiB", ""), table)


if __name__ == "__main__":
    main()
