"""Seeds the global random generators for a stage, watches a method's hooks for draws from them, and puts them back.

A method draws from ``ctx.generator`` and ``ctx.stream``. What it draws from a global generator instead depends on all that
drew before it. Each stage therefore seeds the global generators, so that its number repeats, and names the hooks that drew
from them. A victim may draw from them in its forward pass, as dropout layers do: those draws are seeded and not reported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from benchmark.api import Attack, Context, Defense
from benchmark.running.scheduler.outcome import WARNING

PYTHON = "Python's global generator (random)"
NUMPY = "NumPy's global generator (np.random)"
TORCH = "torch's global generator"
HOOKS: Mapping[type, tuple[str, ...]] = {
    Attack: ("poison", "augment_surrogate"),
    Defense: ("purify", "augment", "loss", "at_test"),
}
FACT = "global_draws"  # the fact of a stage whose method drew from a global generator; absent otherwise
M = TypeVar("M", Attack, Defense)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators, and puts their former states back at the end.

    The generators of GPUs are put back if CUDA was in use before.

    Args:
        seed: from 0 to 2^63 - 1; NumPy takes its last 32 bits.
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
    """Yields a list that holds, at the end, the names of the global generators whose states have changed.

    Code that puts a generator's state back, as ``torch.random.fork_rng`` does, is not seen.

    Args:
        victim: a network whose forward pass may draw, as dropout layers do.
    """
    drawn: dict[str, None] = {}
    last = _states()

    def look(*_: object) -> None:
        drawn.update(
            dict.fromkeys(name for name, state in _states().items() if last.get(name) != state)
        )

    def look_away(*_: object) -> None:
        last.update(_states())

    names: list[str] = []
    handles = (
        []
        if victim is None
        else [
            victim.register_forward_pre_hook(look),
            victim.register_forward_hook(look_away),
        ]
    )
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()
    look()
    names.extend(drawn)


def watch_hooks(method: M, ctx: Context) -> M:
    """Has the hooks that ``method`` overrides watched, and notes the draws in ``ctx``; returns ``method``.

    The note is the fact ``global_draws``, for example ``defense "mine" drew from NumPy's global generator (np.random) in
    augment``.
    """
    kind = Attack if isinstance(method, Attack) else Defense
    who = f'{kind.__name__.lower()} "{method.name}"'
    found: dict[str, dict[str, None]] = {}  # generator -> hooks

    def run(name: str, hook: Callable[..., Any], *args: Any) -> Any:
        with watched(args[0] if name == "loss" else None) as drawn:
            result = hook(*args)
        for generator in drawn:
            found.setdefault(generator, {})[name] = None
            places = [f"{one} in {' and '.join(hooks)}" for one, hooks in found.items()]
            ctx.note(**{FACT: f"{who} drew from {', '.join(places)}"})
        return result

    for name in HOOKS[kind]:
        if getattr(type(method), name) is not getattr(kind, name):
            vars(method)[name] = partial(run, name, getattr(method, name))
    return method


@contextmanager
def seeded_stage(ctx: Context) -> Iterator[None]:
    """Seeds the global generators from the stage's seed axes; at the end, warns of a method that drew from them."""
    if ctx.device.type == "cuda":
        # else its first use would come after the states were looked at
        torch.cuda.init()  # type: ignore[no-untyped-call]
    with seeded(ctx.seed("global")):
        yield
    if FACT in ctx.notes:
        ctx.log(
            f"{WARNING}{ctx.notes[FACT]}; the stage seeds the global generators, so that the number "
            "repeats, but draw from ctx.generator, ctx.stream or ctx.numpy_stream instead"
        )


def _states() -> dict[str, object]:
    """The state of each global generator, by its name, in a form that can be compared."""
    states = {
        PYTHON: random.getstate(),
        NUMPY: _comparable(np.random.get_state(legacy=False)),  # noqa: NPY002
        TORCH: torch.get_rng_state().numpy().tobytes(),
    }
    for device, state in enumerate(_gpu_states()):
        states[f"{TORCH} of cuda:{device}"] = state.numpy().tobytes()
    return states


def _gpu_states() -> list[torch.Tensor]:
    """The states of the GPUs' generators; none where CUDA has not been used yet."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if in_use else []


def _comparable(value: Any) -> object:
    if isinstance(value, Mapping):
        return [_comparable(inner) for inner in value.values()]
    return value.tobytes() if isinstance(value, np.ndarray) else value
