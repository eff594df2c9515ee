"""A bench with a tiny folder data set, plugins and a store: real stages in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmark.catalogue.registry import Registry
from benchmark.contract import toy_set
from benchmark.datasets._open import fingerprint
from benchmark.planning.plan import Plan, make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import Suite, resolve_suite
from benchmark.running.scheduler.outcome import Machine, Outcome
from benchmark.running.scheduler.run import run_plan
from benchmark.storage.record import Record
from benchmark.storage.store import Store

HEAD = """
import torch
from benchmark import Attack, Defense, ImageSet, attack, defense
"""

PURIFY = "def purify(self, data, ctx):\n        "
SHADE = (
    HEAD
    + '''
@attack(version=2, cite="nobody")
class Shade(Attack):
    """Add a random constant to each image."""
    eps: float = 16 / 255

    def poison(self, data, ctx):
        ctx.progress(0.5, "half")
        ctx.note(rounds=7)
        ctx.keep("levels", {"level": torch.ones(2)})
        level = torch.rand(len(data), 1, 1, 1, generator=ctx.generator("level")) + 0.5
        return data.perturb((level * self.eps / 1.5).expand(data.x.shape))
'''
)
COARSE = (
    HEAD
    + '''
@defense(version=3, cite="nobody", needs=("clean:5",))
class Coarse(Defense):
    """Keep few levels, and tell how bright the images were."""
    levels: int = 8

    def purify(self, data, ctx):
        ctx.log("coarse sees %d images" % len(data))
        ctx.note(mean=float(data.x.float().mean()))
        (ctx.scratch / "state").write_text("half done")
        return data.map(lambda x: x // self.levels * self.levels)
'''
)


@dataclass
class Bench:
    """A tiny folder data set and a place for plugins and results."""

    images: Path
    data_root: Path
    work: Path
    plugins: list[Path]

    @property
    def store(self) -> Store:
        return Store(self.work / "store")

    @property
    def registry(self) -> Registry:
        return Registry(tuple(self.plugins))

    @property
    def machine(self) -> Machine:
        return Machine(data_root=str(self.data_root), plugins=tuple(map(str, self.plugins)))

    def method(self, name: str, source: str) -> None:
        """Write a plugin."""
        self.plugins.append(self.work / f"{name}.py")
        self.plugins[-1].write_text(source, encoding="utf-8")

    def edit(self, name: str, source: str) -> None:
        """Write a plugin anew, as its author does between two runs."""
        (self.work / f"{name}.py").write_text(source, encoding="utf-8")

    def plan(self, precision: str = "fp32", **axes: Any) -> Plan:
        base = {
            "name": "tiny",
            "datasets": f"folder[path={self.images},size=16]",
            "attacks": "none",
            "defenses": "none",
            "victims": "resnet10_w16",
            "protocols": "quick",
            "protocol_values": {"epochs": 2, "batch_size": 10, "lr": 0.05},
        }
        registry = self.registry
        suite = resolve_suite(Suite.model_validate({**base, **axes}), registry)
        return make_plan(
            suite, registry, lambda spec: fingerprint(spec, self.data_root, registry), precision
        )

    def run(self, store: Store | None = None, executor: str = "inline", **axes: Any) -> Outcome:
        return self.run_stages(self.plan(**axes).stages, store, executor)

    def run_stages(
        self, stages: Sequence[Stage], store: Store | None = None, executor: str = "inline"
    ) -> Outcome:
        return run_plan(
            stages,
            store or self.store,
            self.machine,
            executor=executor,
            workers=2,
            display="none",
        )

    def records(self, **axes: Any) -> dict[str, Record]:
        """Run a suite without failures; return ``attack + defense`` -> record."""
        outcome = self.run(**axes)
        assert outcome.exit_code == 0, outcome.failures
        return {f"{record.attack} + {record.defense}": record for record in self.store.records()}


def save_images(folder: Path, per_class: dict[str, int], seed: int = 0) -> None:
    """Write ``<folder>/<split>/<class>/*.png``: striped images of two classes, 16 pixels a side."""
    for split, count in per_class.items():
        data = toy_set(classes=2, per_class=count, size=16, seed=seed + len(split))
        for i, (x, y) in enumerate(zip(data.x, data.y.tolist(), strict=True)):
            file = folder / split / f"class{y}" / f"{i:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(x.permute(1, 2, 0).numpy())).save(file)


def one_method(kind: str, body: str, **declared: object) -> str:
    base, more = (
        kind.capitalize(),
        "".join(f", {name}={value!r}" for name, value in declared.items()),
    )
    return (
        HEAD
        + f'\n@{kind}(version=1, cite="nobody"{more})\n'
        + f'class Mine({base}):\n    """Break a promise."""\n    {body}\n'
    )
