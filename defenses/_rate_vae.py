"""Rate-constrained variational autoencoders: the parts that ``vae`` and ``dvae`` share.

Source: Yu, Wang, Xia, Yang, Lu, Tan, Kot, "Purify Unlearnable Examples via Rate-Constrained
Variational Autoencoders", ICML 2024, arXiv:2405.01460, and the constants of its released code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.api import Context
from benchmark.data import ImageSet, chunks
from benchmark.training.loader import Batches
from benchmark.training.schedule import cosine
from benchmark.training.train import check_finite

# Images in a batch when purifying. It decides numbers: in each batch, one network after the other
# draws its noise from the same generator.
PURIFY_BATCH = 256
# Images that a network takes at a time when applied; a multiple of 16, in which torch draws.
CACHED_BATCH = 64
M = TypeVar("M", bound=nn.Module)


class Block(nn.Module):
    """The basic block of a ResNet: conv3x3-BN-ReLU-conv3x3-BN, plus a shortcut, then ReLU.

    D-VAE has its own copy, so that a change of the victims' block changes no purified image. A
    block that halves the sides leaves out pixels before the 1x1 convolution of its shortcut. This
    gives the numbers of ``stride=2`` bit for bit. With ``stride=`` and a number of channels that 8
    does not divide, oneDNN 3.12 crashes on processors without AVX-512.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.stride > 1:
            # This picks pixels as a slice would, but keeps channels-last memory.
            x = F.avg_pool2d(x, 1, self.stride)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class Encoder(nn.Module):
    """The first blocks of a ResNet-18, then 1x1 convolutions to the latent code.

    They give the mean and the log-variance of the code.

    Args:
        channels: of the images.
        width: the channels of the first layer.
        latent: the channels of the code.
        deep: end after the first block of stage 4 (published for 224 px; latents at 1/8 of the
            resolution), not after that of stage 2 (published for 32 px; latents at 1/2).
    """

    def __init__(self, channels: int, width: int, latent: int, deep: bool) -> None:
        super().__init__()
        blocks = [
            Block(width, width, 1),
            Block(width, width, 1),
            Block(width, 2 * width, 2),
        ]
        if deep:
            blocks += [
                Block(2 * width, 2 * width, 1),
                Block(2 * width, 4 * width, 2),
                Block(4 * width, 4 * width, 1),
                Block(4 * width, 8 * width, 2),
            ]
        self.features = (8 if deep else 2) * width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *blocks,
        )
        self.mean = nn.Conv2d(self.features, latent, 1)
        self.log_var = nn.Conv2d(self.features, latent, 1)
        self.post = nn.Conv2d(latent, self.features, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return stem features (B, F, h, w), mean and log-variance, float32 (B, latent, h, w)."""
        features = self.stem(x)
        return features, self.mean(features).float(), self.log_var(features).float()


def decoder(features: int, width: int, channels: int, deep: bool) -> nn.Sequential:
    """Build the transposed convolutions from the code back to the image.

    Instance norms have no affine parameters, and there is no activation at the end. ``width`` is
    the number of channels of the first layer of the shallow form. The released 224-px form declares
    its norms with wrong widths; here they have the true ones, which changes no number.
    """
    if deep:
        return nn.Sequential(
            nn.ConvTranspose2d(features, 4 * width, 4, 2, 1),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, 1, 1),
            nn.InstanceNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ConvTranspose2d(width, width // 2, 3, 1, 1),
            nn.InstanceNorm2d(width // 2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width // 2, channels, 4, 2, 1),
        )
    return nn.Sequential(
        nn.ConvTranspose2d(features, width, 4, 2, 1),
        nn.ConvTranspose2d(width, width, 3, 1, 1),
        nn.InstanceNorm2d(width),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(width, width // 2, 3, 1, 1),
        nn.InstanceNorm2d(width // 2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(width // 2, channels, 3, 1, 1),
    )


def sample(mean: Tensor, log_var: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a code, mean + std * noise, (B, latent, h, w); without a generator it is the mean.

    The noise is drawn where the generator is, as one contiguous run in channels-last order, since
    it takes several times longer to fill a strided tensor.
    """
    if generator is None:
        return mean
    batch, latent, height, width = mean.shape
    shape = batch, height, width, latent
    noise = torch.randn(shape, generator=generator, device=generator.device).permute(0, 3, 1, 2)
    return mean + torch.exp(0.5 * log_var) * noise.to(mean.device, non_blocking=True)


def kl_rate(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the KL divergence to the unit Gaussian, in nats per latent position.

    It is summed over channels and averaged over (B, h, w).
    """
    return (-0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1)).mean()


def rate_weight(target: float, given: float = 0.0) -> float:
    """Return the weight of the rate term: ``given``, or for 0 that of the released code.

    The released weight is 0.01 for targets above 0.99 and 0.5 for others.
    """
    return given or (0.01 if target > 0.99 else 0.5)


def hinge(value: Tensor, bound: float) -> Tensor:
    """Return max(value, bound), which has no gradient while ``value`` is below the bound."""
    return value.clamp(min=bound)


def fit_network(
    net: nn.Module,
    data: ImageSet,
    loss: Callable[[Tensor, Tensor, int], tuple[Tensor, dict[str, Tensor]]],
    ctx: Context,
    *,
    stage: str,
    epochs: int,
    batch_size: int,
    lr: float,
    clip: float,
    floor: float = 0.0,
    anneal: str = "epoch",
    span: tuple[float, float] = (0.0, 1.0),
) -> dict[str, float]:
    """Train with Adam, a cosine to 0, shuffled full batches, no augmentation, gradients clipped.

    Args:
        loss: maps (images, labels, epoch index) to the loss and to named terms for the log.
        stage: names this training in seeds, log and progress.
        floor: what hinges add to the loss however well the network is fitted.
        anneal: ``epoch`` (the learning rate is constant within an epoch, as released) or ``step``.
        span: where this training begins and ends in the whole method, 0..1, for the progress.

    Returns:
        The mean of each named term over the last epoch, and what tells whether the fit ended well
        (docs/add-a-defense.md): ``loss_fall``, the share of the loss above ``floor`` by which the
        last tenth of the steps is below the tenth before, and ``rate``, the mean of the term ``kl``
        over the last tenth. A fit of a single step has no ``loss_fall``, one without ``kl`` no
        ``rate``.

    Raises:
        FloatingPointError: if the loss, or a weight at the end, is no longer finite.
    """
    net.to(ctx.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batches = Batches(
        data, batch_size, ctx.device, ctx.generator(f"{stage} batches"), drop_last=True
    )
    optimizer = torch.optim.Adam(net.parameters(), lr, foreach=True)
    means: dict[str, float] = {}
    steps = epochs * len(batches)
    tenth = max(1, steps // 10)
    late: dict[tuple[str, int], Tensor] = {}  # sums over the last tenth, 0, and the one before, 1
    for epoch in range(epochs):
        sums: dict[str, Tensor] = {}
        for number, (x, y, _) in enumerate(batches):
            done = (epoch + (number / len(batches) if anneal == "step" else 0)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = cosine(lr, done)
            value, terms = loss(x, y, epoch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            ago = (steps - epoch * len(batches) - number - 1) // tenth
            for name, term in {"loss": value, **terms}.items():
                sums[name] = sums.get(name, torch.zeros((), device=x.device)) + term.detach()
                if ago < 2:
                    so_far = late.get((name, ago), torch.zeros((), device=x.device))
                    late[name, ago] = so_far + term.detach()
            if number % 8 == 0:
                here = (epoch + number / len(batches)) / epochs
                ctx.progress(
                    span[0] + (span[1] - span[0]) * here, f"{stage}, epoch {epoch + 1}/{epochs}"
                )
        means = {name: float(total) / len(batches) for name, total in sums.items()}
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"{stage}: the loss is {means['loss']} in epoch {epoch + 1} of {epochs}; "
                f"lower lr (now {lr})"
            )
        shown = " ".join(f"{name} {value:.5f}" for name, value in means.items())
        ctx.log(f"{stage}: epoch {epoch + 1}/{epochs} {shown}")
    check_finite(net, f"after {stage}")
    ends = {place: float(total) / tenth for place, total in late.items()}
    if ("loss", 1) in ends:
        left = max(ends["loss", 1] - floor, 1e-12)
        means["loss_fall"] = (ends["loss", 1] - ends["loss", 0]) / left
    if ("kl", 0) in ends:
        means["rate"] = ends["kl", 0]
    return means


def ready(net: nn.Module, ctx: Context) -> nn.Module:
    """Prepare a fitted network for use: device, channels-last memory, eval mode."""
    return net.to(ctx.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def image_batches(data: ImageSet, ctx: Context) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield all images in order: position, float (B, C, H, W) in [0, 1], labels (B,)."""
    for part in chunks(len(data), PURIFY_BATCH):
        yield part, *data.batch(part, ctx.device)


def in_parts(network: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """Apply a network to few images at a time, which stay in a CPU's cache.

    The network draws the same numbers as for the whole batch.
    """
    parts = zip(*(torch.split(tensor, CACHED_BATCH) for tensor in batch), strict=True)
    return torch.cat([network(*part) for part in parts])


def seeded(make: Callable[[], M], seed: int) -> M:
    """Make a module whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        # This seeds the CPU's generator alone; ``fork_rng`` would not restore those of GPUs.
        torch.default_generator.manual_seed(seed)
        return make()
