"""The game that error-minimising attacks share: surrogate and noise make the loss small in turns.

An attack supplies the two turns of a round. All that a turn draws must depend on the seed and the
round's number. The game keeps its state in the scratch folder after its rounds, so that a killed
game goes on as if nothing had happened.

Sample-wise noise lies in a file, so that memory holds the images alone. A round writes a new file,
and the game deletes the old one once it has kept the round: a file that a kept state names never
changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.api import Context
from benchmark.data import ImageSet, at_once, chunks
from benchmark.training.ball import Ball
from benchmark.training.checkpoint import Checkpoint, restore_training, training_state
from benchmark.training.disk_tensor import DiskTensor
from benchmark.training.gradients import frozen, input_gradient
from benchmark.training.surrogate import chance_accuracy, check_learned
from benchmark.training.train import build_victim, check_finite

Turn = Callable[[int], None]  # gets the number of the round, from 1


class MinMin:
    """One game: the noise, the surrogate and its optimizer.

    Attributes:
        class_noise: float16 (num_classes, C, H, W) in [0, 1] units, on the device, if noise is
            class-wise.
        own_noise: the same for each image (N, C, H, W), in a file, if it is not.
        ball: the budget of the noise.
        model: the surrogate.
        seen: the surrogate behind ``view``, through which both turns look.
        optimizer: of the surrogate, SGD with momentum 0.9.
        chunk: images handled at once in the noise's turn and when the error is counted.
        positive: whether the poisoned set gets the positive part of the noise alone; the game
            itself is played with all of it.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        *,
        surrogate: str,
        by_class: bool,
        eps: float,
        lr: float,
        weight_decay: float,
        chunk: int,
        view: nn.Module | None = None,
        positive: bool = False,
    ) -> None:
        self.surrogate = surrogate
        self.data, self.ctx, self.by_class, self.chunk = data, ctx, by_class, chunk
        self.ball, self.positive = Ball("linf", eps), positive
        self.class_noise = torch.zeros(
            by_class * data.info.num_classes,
            *data.x.shape[1:],
            dtype=torch.float16,
            device=ctx.device,
        )
        self.own_noise = DiskTensor.zeros(None, self._own_shape, torch.float16)
        self._replaced: list[DiskTensor] = []  # noise of rounds that are kept no longer
        model = build_victim(surrogate, data.info, ctx.seed("surrogate"), ctx.registry, data)
        self.model = model.to(ctx.device)
        self.seen = nn.Sequential(view or nn.Identity(), self.model)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr, 0.9, weight_decay=weight_decay
        )
        self._finished, self._expected = 0, 1  # rounds, for the progress

    def play(
        self,
        model_turn: Turn,
        noise_turn: Turn,
        rounds: int,
        expected: int,
        stop_error: float = -1.0,
    ) -> ImageSet:
        """Play the game and return the poisoned set.

        The noise's turn finds the surrogate frozen, in eval mode. Notes ``rounds`` and
        ``surrogate_error``.

        Args:
            rounds: how many to play at most.
            expected: rounds that the shown progress reckons with.
            stop_error: the game ends once the surrogate's error on the poisoned set is at most
                this.

        Raises:
            FloatingPointError: if the surrogate is no longer finite.
            ValueError: if it has learned nothing in the end.
        """
        kept = Checkpoint(self.ctx)
        error = self._restore(kept)
        self._finished, self._expected = kept.done, expected
        while self._finished < rounds and error > stop_error:
            number = self._finished + 1
            model_turn(number)
            check_finite(self.model, f"in round {number}")
            with frozen(self.seen):
                noise_turn(number)
                error = self._error()
            self._finished = number
            self._tell(0.0, f"round {number}, error {error:.1%}")
            self.ctx.log(f"round {number}, error on the poisoned set {error:.4f}")
            kept.save(number, self._state(error), now=not self.by_class)
            while self._replaced:
                self._replaced.pop().delete()
        self.ctx.note(rounds=self._finished, surrogate_error=error)
        chance = chance_accuracy(self.data)
        check_learned(
            self.surrogate,
            1 - error / (1 - chance),
            f"its error on the poisoned set is {error:.1%} after {self._finished} rounds, "
            f"where chance has {1 - chance:.1%}",
            "play more rounds, change lr, or choose another surrogate",
        )
        return self._poisoned()

    def images(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The clean images at ``batch`` and their labels, on the device.

        Images are float (B, C, H, W) in [0, 1] in channels-last memory.
        """
        return self.data.batch(batch, self.ctx.device)

    def noise_of(self, batch: Tensor) -> Tensor:
        """The noise of the images at ``batch``, float16 (B, C, H, W)."""
        if self.by_class:
            return self.class_noise[self.data.y[batch].to(self.ctx.device, non_blocking=True)]
        return self.own_noise[batch].to(self.ctx.device, non_blocking=True)

    def model_step(self, batch: Tensor, max_norm: float = 0.0, clipped: bool = False) -> None:
        """Take one step of the surrogate on the poisoned images at ``batch``.

        Args:
            max_norm: bound on the gradient's norm; 0 for none.
            clipped: whether the poisoned images are clipped to [0, 1].
        """
        x, y = self.images(batch)
        x = x + self.noise_of(batch)
        self.seen.train()
        with self.ctx.autocast():
            logits = self.seen(x.clamp_(0, 1) if clipped else x)
        loss = nn.functional.cross_entropy(logits.float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if max_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self.optimizer.step()

    def descend(self, x: Tensor, y: Tensor, delta: Tensor, steps: int, length: float) -> Tensor:
        """Take ``steps`` sign steps of ``length`` down the loss and return the new delta.

        It is within the budget but not clipped to the image range.
        """
        current = (x + delta).clamp_(0, 1)
        for _ in range(steps):
            gradient, _ = input_gradient(self.seen, current, y, self.ctx)
            delta = self.ball.within(current - length * self.ball.direction(gradient) - x)
            current = (x + delta).clamp_(0, 1)
        return delta

    def class_sums(self, values: Tensor, y: Tensor) -> Tensor:
        """Sum values (B, ...) of images with labels ``y`` by class, float32 (num_classes, ...)."""
        shape = (self.data.info.num_classes, *values.shape[1:])
        return torch.zeros(shape, device=values.device).index_add_(0, y, values)

    def sample_turn(self, steps: int, length: float) -> None:
        """The noise's turn when every image has its own: ``descend`` on all of them."""
        after = DiskTensor.zeros(self.ctx.scratch, self._own_shape, torch.float16)
        try:
            for part in chunks(len(self.data), self.chunk):
                batch = torch.arange(part.start, part.stop)
                after[part] = self.descend(
                    *self.images(batch), self.noise_of(batch).float(), steps, length
                ).half()
                self._tell(part.stop / len(self.data), f"round {self._finished + 1}")
            after.keep()
        except BaseException:  # a full disk must not become fuller with every try
            after.delete()
            raise
        self._replaced.append(self.own_noise)
        self.own_noise = after

    @property
    def _own_shape(self) -> tuple[int, ...]:
        return 0 if self.by_class else len(self.data), *self.data.x.shape[1:]

    def _tell(self, share: float, note: str) -> None:
        """Report progress with ``share`` of the present round done."""
        self.ctx.progress(min((self._finished + share) / self._expected, 0.95), note)

    @torch.no_grad()
    def _error(self) -> float:
        """The surrogate's error on the poisoned set, without the view."""
        wrong = 0
        for part in chunks(len(self.data), self.chunk):
            batch = torch.arange(part.start, part.stop)
            x, y = self.images(batch)
            with self.ctx.autocast():
                logits = self.model((x + self.noise_of(batch)).clamp(0, 1))
            wrong += int((logits.argmax(1) != y).sum())
        return wrong / len(self.data)

    def _poisoned(self) -> ImageSet:
        out = torch.empty_like(self.data.x)
        for part in chunks(len(self.data), at_once(self.data.x)):
            batch = torch.arange(part.start, part.stop)
            noise = self.noise_of(batch)
            out[part] = (
                self.data.select(batch).perturb(noise.clamp_min(0) if self.positive else noise).x
            )
        return self.data.with_x(out)

    def _state(self, error: float) -> dict[str, Tensor]:
        file = "" if self.own_noise.path is None else self.own_noise.path.name
        name = torch.tensor(list(file.encode()), dtype=torch.uint8)
        game = {
            "class_noise": self.class_noise,
            "own_noise": name,
            "error": torch.tensor(error, dtype=torch.float64),
        }
        return {**game, **training_state(self.model, self.optimizer)}

    def _restore(self, kept: Checkpoint) -> float:
        """Go back to a kept state, if there is one; return its error, or infinity."""
        if not kept.done:
            return float("inf")
        try:
            name = bytes(kept.tensors["own_noise"].tolist()).decode()
            if name and self.ctx.scratch is not None:
                self.own_noise = DiskTensor(
                    self.ctx.scratch / Path(name).name, self._own_shape, torch.float16
                )
        except (OSError, KeyError) as error:
            # another run of the same stage has gone on, or an earlier uebench kept it otherwise
            self.ctx.log(f"the noise of round {kept.done} cannot be read ({error}); starting anew")
            kept.done = 0
            return float("inf")
        self.class_noise.copy_(kept.tensors["class_noise"])
        restore_training(self.model, self.optimizer, kept)
        return float(kept.tensors["error"])


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut ``order`` into parts of ``size``; leave out a part of one, since BatchNorm needs two.

    Raises:
        ValueError: if no part is left.
    """
    parts = [part for part in order.split(size) if len(part) > 1]  # type: ignore[no-untyped-call]
    if not parts:
        raise ValueError(
            "the surrogate needs batches of at least 2 images; "
            f"got {len(order)} images in batches of {size}"
        )
    return parts
