"""Keep checkpoints of long-running methods in their scratch folder.

A run that was killed continues from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmark.api import Context
from benchmark.storage.atomic import publish, tensor_file

SAVE_EVERY = 30.0  # seconds; a killed run loses at most this time and its unfinished round


class Checkpoint:
    """The state of one loop over rounds, as tensors.

    A method makes one before its loop, starts at ``done`` with ``tensors``, and calls ``save``
    after each round. Draws must depend on the round, as ``ctx.generator(f"round {number}")``, or on
    a generator whose state is saved, so that a resumed run gives the same result. Without a scratch
    folder nothing is kept.

    Attributes:
        done: the number of finished rounds when the run was stopped; 0 in a fresh run.
        tensors: the saved tensors, on the CPU; empty in a fresh run.
    """

    def __init__(self, ctx: Context, name: str = "state") -> None:
        self.path = None if ctx.scratch is None else _file(ctx.scratch, name)
        self.done = 0
        self.tensors: dict[str, Tensor] = {}
        self._last = time.monotonic()
        if self.path is not None and self.path.is_file():
            self._read(ctx)

    def _read(self, ctx: Context) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        assert self.path is not None
        try:
            tensors = load_file(self.path)  # the system reads its pages when they are used
            self.done = int(tensors.pop("done"))
            self.tensors = tensors
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            ctx.log(f"{self.path.name} cannot be read ({error}); starting anew")
            return
        ctx.log(f"going on after round {self.done}")

    def save(self, done: int, tensors: Mapping[str, Tensor], now: bool = False) -> None:
        """Keep the state after ``done`` rounds.

        Nothing is written within ``SAVE_EVERY`` seconds of the last save, unless ``now`` is set.

        Raises:
            OSError: if the disk is full.
        """
        if self.path is None or (not now and time.monotonic() - self._last < SAVE_EVERY):
            return
        publish(self.path, tensor_file({**tensors, "done": torch.tensor(done)}))
        self._last = time.monotonic()

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors named ``prefix.name`` as ``name``, for example a network's state."""
        return {
            name.removeprefix(f"{prefix}."): value
            for name, value in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def kept(ctx: Context, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return one piece of a long method's result, from the scratch folder if it is there.

    If it is not there, ``make`` makes it and it is kept. A method that asks for a piece a second
    time must be able to make it again: another run of the same stage may have ended meanwhile and
    emptied the folder.
    """
    found = Checkpoint(replace(ctx, on_log=None), name)  # a line for each piece would fill the log
    if not found.done:
        found.tensors = make()
        found.save(1, found.tensors, now=True)
    return found.tensors


def forget(ctx: Context, name: str) -> None:
    """Delete the checkpoint ``name``."""
    if ctx.scratch is not None:
        _file(ctx.scratch, name).unlink(missing_ok=True)


@contextmanager
def with_scratch(ctx: Context) -> Iterator[Context]:
    """Give ``ctx`` a scratch folder, for pieces that together may be too large for memory.

    If ``ctx`` has none, it gets a temporary folder, which is deleted at the end.
    """
    if ctx.scratch is not None:
        yield ctx
        return
    with TemporaryDirectory(prefix="uebench-") as folder:
        yield replace(ctx, scratch=Path(folder))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names ``prefix.name``, which ``Checkpoint.part`` reads back."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def training_state(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Return weights, buffers and momentum of a training, which ``restore_training`` puts back."""
    state = optimizer.state  # it holds no weights that do not learn
    momentum = {
        name: state[weight]["momentum_buffer"]
        for name, weight in model.named_parameters()
        if weight in state
    }
    return {**named("model", model.state_dict()), **named("momentum", momentum)}


def restore_training(model: nn.Module, optimizer: torch.optim.SGD, kept: Checkpoint) -> None:
    """Put a training back to the state that a checkpoint holds."""
    model.load_state_dict(kept.part("model"))
    weights = dict(model.named_parameters())
    for name, momentum in kept.part("momentum").items():
        weight = weights[name]
        buffer = torch.empty_like(weight)  # in the weight's memory format, as SGD itself makes it
        optimizer.state[weight]["momentum_buffer"] = buffer.copy_(momentum)
