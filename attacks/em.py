"""Error-minimising noise: a surrogate and the noise make the training loss small in turns.

Source: Huang, Ma, Erfani, Bailey, Wang, "Unlearnable Examples: Making Personal Data
Unexploitable", ICLR 2021, arXiv:2101.04898. Constants are those of the released CIFAR-10 scripts.

Departures:
- Noise is signed. The released poison data sets add only its positive part (issue 13 of the
  release); ``preset=official`` does the same.
- The surrogate's batches follow one seeded permutation instead of the order of the files, which
  for a folder of classes would show the surrogate one class at a time.
- Class-wise, too, the surrogate's batches keep one order; the source shuffles anew in every pass.
  A batch of one image is left out.
- Class-wise, each round draws the share of the set that updates the noise; the release draws it
  once.
- The stop error is that on the whole poisoned set, clipped to [0, 1]; each image counts alike.
  The release's is that of images without clipping, the mean over batches of any size; class-wise
  it is that on the drawn share.
- Rounds are bounded, since the error on the poisoned set falls unevenly.
- The last noise step's evaluation counts as the round's evaluation: in eval mode with frozen
  weights they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval, Lt
from torch import Tensor

from attacks._min_min import MinMin, batches
from benchmark import Attack, Context, ImageSet, attack

# eval-mode BatchNorm makes images independent, so the size is free; this one stays in a CPU's cache
NOISE_BATCH = 125


@attack(
    version=1,
    cite="arXiv:2101.04898",
    norm="linf",
    # some five rounds of 20 noise steps; class-wise it is far less
    effort={"": 60.0},
    toy={
        "surrogate": "resnet8_w16_s2",
        "max_rounds": 2,
        "model_steps": 15,
        "noise_steps": 2,
        "batch_size": 32,
    },
    later=("preset",),
)
class EM(Attack):
    """Error-minimising noise, one pattern an image (sample) or a class (class).

    Parameters:
        granularity: sample or class.
        eps: L-inf budget in [0, 1] units.
        step: length of one sign step in [0, 1] units.
        noise_steps: sign steps a batch and round; 0 means 20 sample-wise and 1 class-wise.
        model_steps: surrogate steps a round.
        stop_error: stop when the surrogate's error on the poisoned set is at most this.
        max_rounds: stop after this many rounds at the latest.
        surrogate: architecture of the surrogate, a victim's name.
        batch_size: of the surrogate's training.
        lr: of the surrogate's SGD, constant.
        class_share: share of the set that updates the class-wise noise in a round.
        preset: clean; or official, where images get only the positive part of their noise, as in
            the released data sets.
    """

    granularity: Literal["sample", "class"] = "sample"
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    step: Annotated[float, Interval(gt=0, lt=1)] = 0.8 / 255
    noise_steps: Annotated[int, Ge(0)] = 0
    model_steps: Annotated[int, Ge(1)] = 10
    stop_error: Annotated[float, Lt(1)] = 0.01
    max_rounds: Annotated[int, Ge(1)] = 100
    surrogate: str = "resnet18"
    batch_size: Annotated[int, Ge(2)] = 512
    lr: Annotated[float, Gt(0)] = 0.1
    class_share: Annotated[float, Interval(gt=0, le=1)] = 0.2
    preset: Literal["clean", "official"] = "clean"

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        by_class = self.granularity == "class"
        game = MinMin(
            data,
            ctx,
            surrogate=self.surrogate,
            by_class=by_class,
            eps=self.eps,
            lr=self.lr,
            weight_decay=5e-4,
            chunk=NOISE_BATCH,
            positive=self.preset == "official",
        )
        order = torch.randperm(len(data), generator=ctx.generator("order"))
        parts = batches(order, self.batch_size)

        def model_turn(number: int) -> None:
            for step in range((number - 1) * self.model_steps, number * self.model_steps):
                game.model_step(parts[step % len(parts)], max_norm=5.0)

        def noise_turn(number: int) -> None:
            if by_class:
                self._class_turn(game, number)
            else:
                game.sample_turn(self.noise_steps or 20, self.step)

        return game.play(
            model_turn, noise_turn, self.max_rounds, expected=12, stop_error=self.stop_error
        )

    def _class_turn(self, game: MinMin, number: int) -> None:
        """Move the noise of each class to the mean noise that the images of a batch would get.

        A share of the set takes part, batch by batch.
        """
        noise = game.class_noise
        for batch in self._stratified(game.data, number, game.ctx):
            x, y = game.images(batch)
            updated = game.descend(x, y, noise[y].float(), self.noise_steps or 1, self.step)
            count = game.class_sums(torch.ones_like(y, dtype=torch.float32), y)
            seen = count > 0
            mean = game.class_sums(updated, y)[seen] / count[seen][:, None, None, None]
            noise[seen] = game.ball.within(mean).half()

    def _stratified(self, data: ImageSet, number: int, ctx: Context) -> Iterator[Tensor]:
        """Draw the round's share of each class and yield it in shuffled batches.

        An incomplete batch is dropped unless it is the only one.
        """
        generator = ctx.generator(f"subset {number}")
        chosen = []
        for label in range(data.info.num_classes):
            members = (data.y == label).nonzero().flatten()
            take = max(1, round(self.class_share * len(members)))
            chosen.append(members[torch.randperm(len(members), generator=generator)[:take]])
        pool = torch.cat(chosen)
        pool = pool[torch.randperm(len(pool), generator=generator)]
        for batch in pool.split(self.batch_size):  # type: ignore[no-untyped-call]
            if len(batch) == self.batch_size or len(pool) < self.batch_size:
                yield batch
