"""Error-minimising noise: a surrogate and the noise take turns in making the training loss small.

Source: Huang, Ma, Erfani, Bailey, Wang, "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
arXiv:2101.04898. Constants are those of the released CIFAR-10 scripts.

Departures:
- Noise is signed. The released poison data sets add only its positive part (issue 13 of the release).
- The surrogate's batches follow one seeded permutation instead of the order of the files, which for a folder of classes
  would show the surrogate one class at a time.
- Class-wise, too, the surrogate's batches keep one order; the source shuffles anew in every pass. A batch of one image is left out.
- Rounds are bounded, since the error on the poisoned set falls unevenly.
- The last noise step's evaluation counts as the round's evaluation: in eval mode with frozen weights they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmark import Attack, Context, ImageSet, attack
from benchmark.data import chunks, to_float
from benchmark.gradients import frozen, input_gradient
from benchmark.spec import Value
from benchmark.train import build_victim

NOISE_BATCH = 250  # eval-mode BatchNorm makes images independent, so the size is free; this one stays in a CPU's cache


@attack(version=1, cite="arXiv:2101.04898")
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
    """

    norm = "linf"
    effort: ClassVar[Mapping[str, float]] = {"": 60.0}  # some five rounds of 20 noise steps; class-wise it is far less
    toy: ClassVar[Mapping[str, Value]] = {
        "surrogate": "resnet10_w16",
        "max_rounds": 2,
        "model_steps": 2,
        "noise_steps": 2,
        "batch_size": 32,
    }
    granularity: str = "sample"
    eps: float = 8 / 255
    step: float = 0.8 / 255
    noise_steps: int = 0
    model_steps: int = 10
    stop_error: float = 0.01
    max_rounds: int = 100
    surrogate: str = "resnet18"
    batch_size: int = 512
    lr: float = 0.1
    class_share: float = 0.2

    def __post_init__(self) -> None:
        if self.granularity not in ("sample", "class"):
            raise ValueError(f'granularity="{self.granularity}", expected sample or class')
        if not 0 < self.eps < 1 or not 0 < self.step < 1:
            raise ValueError(f"eps={self.eps} and step={self.step} are in [0, 1] units; write 8/255, not 8")
        if min(self.model_steps, self.max_rounds, self.batch_size) < 1 or self.noise_steps < 0:
            raise ValueError("model_steps, max_rounds and batch_size must be at least 1, noise_steps at least 0")

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        by_class = self.granularity == "class"
        delta = torch.zeros(data.info.num_classes if by_class else len(data), *data.x.shape[1:], dtype=torch.float16, device=ctx.device)
        index = data.y if by_class else torch.arange(len(data))  # which noise belongs to which image
        model = build_victim(self.surrogate, data.info, ctx.seed("surrogate"), ctx.registry).to(ctx.device)
        optimizer = torch.optim.SGD(model.parameters(), self.lr, 0.9, weight_decay=5e-4)
        batches = self._endless(data, ctx)
        error = 1.0
        for number in range(1, self.max_rounds + 1):
            for _ in range(self.model_steps):
                self._model_step(model, optimizer, data, delta, index, next(batches), ctx)
            with frozen(model):
                error = self._class_round(model, data, delta, number, ctx) if by_class else self._sample_round(model, data, delta, ctx)
            ctx.progress(min(number / 12, 0.95), f"round {number}, error {error:.1%}")
            ctx.log(f"em: round {number}, error on the poisoned set {error:.4f}")
            if error <= self.stop_error:
                break
        ctx.note(rounds=number, surrogate_error=error)
        return data.perturb(delta[index])

    def _endless(self, data: ImageSet, ctx: Context) -> Iterator[Tensor]:
        order = torch.randperm(len(data), generator=ctx.generator("order"))
        parts = [part for part in order.split(self.batch_size) if len(part) > 1]  # type: ignore[no-untyped-call]  # BatchNorm needs two
        if not parts:
            raise ValueError(f"em needs batches of at least 2 images; got {len(data)} images in batches of {self.batch_size}")
        while True:
            yield from parts

    def _model_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, data: ImageSet, delta: Tensor, index: Tensor, batch: Tensor, ctx: Context
    ) -> None:
        x = _images(data, batch, ctx) + delta[index[batch]]  # not clipped, as in the source
        model.train()
        with ctx.autocast():
            logits = model(x)
        loss = nn.functional.cross_entropy(logits.float(), data.y[batch].to(ctx.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    def _descend(self, model: nn.Module, x: Tensor, y: Tensor, delta: Tensor, ctx: Context, steps: int) -> Tensor:
        """``steps`` sign steps down the loss; returns the new delta, within the budget but not clipped to the image range."""
        current = (x + delta).clamp_(0, 1)
        for _ in range(steps):
            gradient, _ = input_gradient(model, current, y, ctx)
            delta = (current - self.step * gradient.sign() - x).clamp_(-self.eps, self.eps)
            current = (x + delta).clamp_(0, 1)
        return delta

    def _sample_round(self, model: nn.Module, data: ImageSet, delta: Tensor, ctx: Context) -> float:
        wrong = 0
        for part in chunks(len(data), NOISE_BATCH):
            batch = torch.arange(part.start, part.stop)
            x, y = _images(data, batch, ctx), data.y[batch].to(ctx.device)
            delta[part] = self._descend(model, x, y, delta[part].float(), ctx, self.noise_steps or 20).half()
            wrong += _errors(model, x + delta[part], y, ctx)
        return wrong / len(data)

    def _class_round(self, model: nn.Module, data: ImageSet, delta: Tensor, number: int, ctx: Context) -> float:
        for batch in self._stratified(data, number, ctx):
            x, y = _images(data, batch, ctx), data.y[batch].to(ctx.device)
            updated = self._descend(model, x, y, delta[y].float(), ctx, self.noise_steps or 1)
            count = torch.zeros(len(delta), device=ctx.device).index_add_(0, y, torch.ones_like(y, dtype=torch.float32))
            total = torch.zeros(delta.shape, device=ctx.device).index_add_(0, y, updated)
            seen = count > 0
            delta[seen] = (total[seen] / count[seen][:, None, None, None]).clamp_(-self.eps, self.eps).half()
        wrong = 0
        for part in chunks(len(data), NOISE_BATCH):
            batch = torch.arange(part.start, part.stop)
            y = data.y[batch].to(ctx.device)
            wrong += _errors(model, _images(data, batch, ctx) + delta[y], y, ctx)
        return wrong / len(data)

    def _stratified(self, data: ImageSet, number: int, ctx: Context) -> Iterator[Tensor]:
        """Shuffled batches of a share of each class, drawn anew each round; an incomplete batch is dropped unless alone."""
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


def _images(data: ImageSet, batch: Tensor, ctx: Context) -> Tensor:
    return to_float(data.x[batch].to(ctx.device)).to(memory_format=torch.channels_last)


@torch.no_grad()
def _errors(model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> int:
    with ctx.autocast():
        logits = model(x.clamp(0, 1))
    return int((logits.argmax(1) != y).sum())
