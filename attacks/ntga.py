"""Neural tangent generalisation attack: images that teach wide networks what does not generalise.

Source: Yuan, Wu, "Neural Tangent Generalization Attacks", ICML 2021, arXiv:2103.08446. A kernel
machine gives in closed form what a network of infinite width learns from a block of images. The
attack climbs the machine's loss on held-out images with respect to the images of the block.

The held-out images are training images, never test images. The source cuts a fifth of CIFAR-10 off
for them and publishes the rest. Here they stay in the set, since an attack returns every image it
was given. A victim would learn from a clean fifth of the set, so that by default the attack
protects the held-out images too.

Departures:
- cover=all, the default, adds a second pass with roles turned around: it protects the held-out
  images, while as many of the others are held out. cover=train is the source's single pass.
- mode=iterated, the default, is projected gradient ascent. In the release each of ten iterations
  starts from the clean images and steps by all of eps, which makes them one step; that is
  mode=official.
- A pass is cut into blocks of equal size, at most 512 images, so that no image is left over. The
  source drops images that do not fill a block.
- All held-out images count. The source takes them in batches of 30 and drops the last ten. The
  gradient is a sum over them, so that batches are of no other consequence.
- The fully connected network ends in a dense layer. The released kernel stops after the last Erf.
- Convolutions have stride 2 at every image size. The source has stride 3 for ImageNet.
- The gradient of the matrix function is taken in its eigenbasis by divided differences, which is
  exact where eigenvalues meet. The source differentiates the eigenvectors.
- Where two images agree in a patch, the angle between them has no slope; it counts as 0.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional as F

from attacks._ntk import CNN, FNN, KernelMachine
from benchmark import Attack, Context, DatasetInfo, ImageSet, attack
from benchmark.data import at_once, chunks, to_float
from benchmark.training.ball import Ball
from benchmark.training.checkpoint import kept, with_scratch

TIMES = {"cnn": 8.0, "fnn": 4096.0}  # the best of the paper for CIFAR-10
REACH = 1.1  # length of all steps together, in units of eps


@attack(
    version=1,
    cite="arXiv:2103.08446",
    norm="linf",
    # at 10,000 validation images; in proportion to their number
    effort={"steps": 8.0},
    toy={"steps": 2},
)
class NTGA(Attack):
    """Climb the held-out loss of a neural tangent kernel machine, block by block.

    Parameters:
        kernel: cnn or fnn.
        mode: iterated (projected gradient ascent) or official (one step of length eps).
        cover: all, or train: held-out images stay clean.
        eps: L-inf budget in [0, 1] units.
        steps: sign steps a block, each of 1.1 * eps / steps; not used in mode official.
        t: training time of the networks, in gradient steps of rate 1; 0 means 8 for cnn and 4096
            for fnn.
        block: images that are trained on together, at most.
        holdout: share of the set that is held out.
        validation_images: held-out images whose loss is climbed; 0 means all of them.
    """

    kernel: Literal["cnn", "fnn"] = "cnn"
    mode: Literal["iterated", "official"] = "iterated"
    cover: Literal["all", "train"] = "all"
    eps: Annotated[float, Interval(ge=0.5 / 255, lt=1)] = 8 / 255
    steps: Annotated[int, Ge(1)] = 10
    t: Annotated[float, Ge(0)] = 0.0
    block: Annotated[int, Ge(1)] = 512
    holdout: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    validation_images: Annotated[int, Ge(0)] = 0

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        work, order = self._work(data, ctx)

        def protected(number: int) -> dict[str, Tensor]:
            block, held_out = (data.select(index) for index in work[number])
            delta, seen = self._protect(block, held_out, ctx, number, len(work))
            return {"x": block.perturb(delta).x, "facts": seen}

        # blocks wait in files, so that memory need not hold the result beside the kernels
        with with_scratch(ctx) as inside:

            def block(number: int) -> dict[str, Tensor]:
                return kept(inside, f"block{number}", partial(protected, number))

            for number in range(len(work)):
                block(number)
            out, facts = data.x.clone(), torch.empty(len(work), 4, dtype=torch.float64)
            for number, (index, _) in enumerate(work):
                made = block(number)
                out[index], facts[number] = made["x"].to(out.device), made["facts"]
        covered = torch.zeros(len(data), dtype=torch.bool)
        covered[torch.cat([index for index, _ in work])] = True
        ctx.keep("split", {"order": order, "covered": covered})
        ctx.note(
            blocks=len(work),
            coverage=float(covered.double().mean()),
            validation_images=len(work[0][1]),
        )
        names = ("loss_clean", "loss_protected", "acc_clean", "acc_protected")
        for name, value in zip(names, facts.mean(0).tolist(), strict=True):
            ctx.note(**{f"validation_{name}": value})
        return data.with_x(out)

    def _work(self, data: ImageSet, ctx: Context) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Cut the set into blocks.

        Returns:
            The images of each block with those held out for it, and the shuffled order of all
            images; int64 indices.
        """
        if len(data) < 2:
            raise ValueError(f"ntga needs at least 2 images, one of them held out; got {len(data)}")
        order = torch.randperm(len(data), generator=ctx.generator("split"))
        held = min(max(round(self.holdout * len(data)), 1), len(data) - 1)
        train, rest = order[:-held], order[-held:]
        work = []
        for part, others in [(train, rest), (rest, train)][: 2 if self.cover == "all" else 1]:
            held_out = others[: self.validation_images or held]
            blocks = part.tensor_split(math.ceil(len(part) / self.block))
            work += [(block, held_out) for block in blocks]
        return work, order

    def _protect(
        self, block: ImageSet, held_out: ImageSet, ctx: Context, number: int, total: int
    ) -> tuple[Tensor, Tensor]:
        """Make the noise of block ``number`` of ``total``.

        Returns:
            The noise, float32 (N, C, H, W), and four facts of the held-out images, float64: their
            mean loss before and after, then their accuracy before and after.
        """
        x, y = block.x.to(ctx.device), block.y.to(ctx.device)
        x_out, y_out = held_out.x.to(ctx.device), held_out.y.to(ctx.device)
        steps = self.steps if self.mode == "iterated" else 1
        ball, length = Ball("linf", self.eps), REACH * self.eps / steps
        delta = torch.zeros(x.shape, device=ctx.device)
        seen = []  # logits of the held-out images
        for done in range(steps):
            machine = self._machine(to_float(x).add_(delta), y, block.info)
            gradient, logits = machine.gradient(x_out, y_out)
            del machine
            seen.append(logits)
            # in place: a block of large images takes 0.3 GB as floats
            for part in chunks(len(x), at_once(x)):
                clean = to_float(x[part])
                moved = ball.within(delta[part] + length * ball.direction(gradient[part]))
                delta[part] = (clean + moved).clamp_(0, 1) - clean
            del gradient
            text = f"block {number + 1} of {total}, step {done + 1} of {steps}"
            ctx.progress((number + (done + 1) / (steps + 1)) / total, text)
        seen.append(self._machine(to_float(x).add_(delta), y, block.info).predict(x_out))
        losses = [F.cross_entropy(logits, y_out) for logits in (seen[0], seen[-1])]
        accs = [(logits.argmax(1) == y_out).double().mean() for logits in (seen[0], seen[-1])]
        text = f"loss {losses[0]:.3f} to {losses[1]:.3f}, accuracy {accs[0]:.1%} to {accs[1]:.1%}"
        ctx.progress((number + 1) / total, f"block {number + 1} of {total}: {text}")
        ctx.log(f"ntga: block {number + 1} of {total}, held-out {text}")
        return delta, torch.stack([*losses, *accs]).cpu()

    def _machine(self, x: Tensor, y: Tensor, info: DatasetInfo) -> KernelMachine:
        kernel = CNN(info.height, info.width, x.device) if self.kernel == "cnn" else FNN()
        return KernelMachine(kernel, x, y, info.num_classes, self.t or TIMES[self.kernel])
