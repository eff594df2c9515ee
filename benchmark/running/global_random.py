"""Seed the global random generators for a stage, and report methods that draw from them.

A method should draw from ``ctx.generator`` and ``ctx.stream``. A number from a global generator
depends on all draws before it. So each stage seeds the global generators, and its result repeats.
It also names the hooks that drew from them. A victim may draw from them in its forward pass, as
dropout layers do; such draws are seeded and not reported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.keys import axis_seed
from benchmark.running.scheduler.outcome import WARNING

PYTHON = "Python's global generator (random)"
NUMPY = "NumPy's global generator (np.random)"
TORCH = "torch's global generator"
HOOKS: Mapping[type, tuple[str, ...]] = {
    Attack: ("poison", "augment_surrogate"),
    Defense: ("purify", "augment", "loss", "at_test"),
}
FACT = "global_draws"  # a stage has this fact only if its method drew from a global generator
IMPORT = "the import of its file"  # places outside hooks where a method may draw
BUILD = "__post_init__"
M = TypeVar("M", Attack, Defense)
_at_import: dict[tuple[Path, str], list[str]] = {}  # file and content -> generators drawn from


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put their former states back at the end.

    The generators of GPUs are put back if CUDA was in use before.

    Args:
        seed: from 0 to 2^63 - 1; NumPy gets its last 32 bits.
    """
    python = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    cpu, gpus = torch.get_rng_state(), _gpu_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  plugins draw from this one
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)


@contextmanager
def watched(victim: nn.Module | None = None) -> Iterator[list[str]]:
    """Yield a list that is filled, at the end, with the names of the generators that were used.

    A generator was used if its state has changed. Code that puts the state back, as
    ``torch.random.fork_rng`` does, is not noticed.

    Args:
        victim: a network whose forward pass may draw, as dropout layers do.
    """
    drawn: dict[str, None] = {}
    last = _states()

    def look(*_: object) -> None:
        changed = [name for name, state in _states().items() if last.get(name) != state]
        drawn.update(dict.fromkeys(changed))

    def look_away(*_: object) -> None:
        last.update(_states())

    names: list[str] = []
    handles = []
    if victim is not None:
        handles.append(victim.register_forward_pre_hook(look))
        handles.append(victim.register_forward_hook(look_away))
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()
    look()
    names.extend(drawn)


def import_seeded(kind: str, name: str, registry: Registry) -> list[str]:
    """Import the file of a method or victim, and return the generators that the import drew from.

    A process imports a file once, for whichever stage needs it first. So the seed of the import
    depends on the name and the content of the file alone. Later calls return what the first found.
    An import that came before the first call was not seeded, and its draws are not known.

    Raises:
        Exception: whatever the file raises, or as ``Registry.load`` does.
    """
    card = registry.card(kind, name)
    with seeded(axis_seed("import", card.file.stem, card.content)), watched() as drawn:
        registry.load(kind, name)
    return _at_import.setdefault((card.file, card.content), drawn)


def build_watched(kind: str, spec: Spec, registry: Registry, ctx: Context) -> Any:
    """Build a method; its draws until then become the fact ``global_draws`` in ``ctx``.

    Raises:
        Exception: as ``import_seeded`` and ``Registry.build`` do.
    """
    at_import = import_seeded(kind, spec.name, registry)
    with watched() as drawn:
        method = registry.build(kind, spec)
    _note(method, IMPORT, at_import, ctx)
    _note(method, BUILD, drawn, ctx)
    return method


def watch_hooks(method: M, ctx: Context) -> M:
    """Watch the hooks that ``method`` overrides, and return ``method``.

    Draws become the fact ``global_draws`` in ``ctx``, for example ``defense "mine" drew from
    NumPy's global generator (np.random) in augment``.
    """
    kind = Attack if isinstance(method, Attack) else Defense

    def run(name: str, hook: Callable[..., Any], *args: Any) -> Any:
        with watched(args[0] if name == "loss" else None) as drawn:
            result = hook(*args)
        _note(method, name, drawn, ctx)
        return result

    for name in HOOKS[kind]:
        if getattr(type(method), name) is not getattr(kind, name):
            vars(method)[name] = partial(run, name, getattr(method, name))
    return method


def _note(method: Attack | Defense, place: str, drawn: list[str], ctx: Context) -> None:
    """Add a place where a method drew from generators to the fact ``global_draws``."""
    if not drawn:
        return
    # The method itself remembers its draws: generator -> places.
    found: dict[str, dict[str, None]] = vars(method).setdefault(f"_{FACT}", {})
    for generator in drawn:
        found.setdefault(generator, {})[place] = None
    kind = "attack" if isinstance(method, Attack) else "defense"
    places = [f"{one} in {' and '.join(where)}" for one, where in found.items()]
    ctx.note(**{FACT: f'{kind} "{method.name}" drew from {", ".join(places)}'})


@contextmanager
def seeded_stage(ctx: Context) -> Iterator[None]:
    """Seed the global generators from the stage's seed axes; warn if a method draws from them."""
    if ctx.device.type == "cuda":
        # CUDA's generators must be there before ``seeded`` reads the states.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    with seeded(ctx.seed("global")):
        yield
    if FACT in ctx.notes:
        ctx.log(
            f"{WARNING}{ctx.notes[FACT]}; the stage seeds the global generators, so that the "
            "number repeats, but draw from ctx.generator, ctx.stream or ctx.numpy_stream instead"
        )


def _states() -> dict[str, object]:
    """Return the state of each global generator, by its name, in a form that can be compared."""
    states = {
        PYTHON: random.getstate(),
        NUMPY: _comparable(np.random.get_state(legacy=False)),  # noqa: NPY002
        TORCH: torch.get_rng_state().numpy().tobytes(),
    }
    for device, state in enumerate(_gpu_states()):
        states[f"{TORCH} of cuda:{device}"] = state.numpy().tobytes()
    return states


def _gpu_states() -> list[torch.Tensor]:
    """Return the states of the GPUs' generators; there are none before CUDA is in use."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if in_use else []


def _comparable(value: Any) -> object:
    if isinstance(value, Mapping):
        return [_comparable(inner) for inner in value.values()]
    return value.tobytes() if isinstance(value, np.ndarray) else value
