"""A small convolutional network that learns in few epochs, and its whitening of the images.

Source: Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, and
the released airbench94.

A fixed 2x2 convolution whitens the patches of the images. Three blocks of two 3x3 convolutions
follow, with max-pooling, BatchNorm without scales, and GELU. Convolutions begin as the identity on
as many channels as they can. The largest value of each channel enters a linear layer.

The source raises the learning rate of BatchNorm's shifts 64-fold. Here a parameter holds an eighth
of each shift, which is the same for SGD with a learning rate for all: the gradient of the eighth is
8 times that of the shift, and a step of the eighth moves the shift 8 times as far.

Departures:
- Images are not normalised before they are whitened. The whitening undoes any scale but for its
  ``eps``, which is therefore in units of the images' variance, as it is in the source.
- The whitening sees 5,000 images at even steps through the set; the source takes the first 5,000,
  which are of one class in a sorted set.
- It runs in float32 under bf16 as well: bf16 would round off the differences between neighbours,
  which it magnifies.
- Its bias is trained to the end; the source freezes it after three epochs, to save time.
- BatchNorm keeps its usual momentum and eps. The source's faster statistics help with Lookahead
  alone, says the release.
- Left out, since they would change the trainer or the test for all victims: Lookahead, mirroring
  in alternate epochs, reflected borders of the random shifts, and several views of a test image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import DatasetInfo, ImageSet, chunks

IMAGES = 5000  # that the whitening sees
SIDE = 2  # of the patches that are whitened, in pixels
EPS = 5e-4  # added to the variance of each component, as a share of the mean variance
LEAST = 1e-6  # bounds that term from below, so that sets of equal pixels have a whitening, too
GAIN = 8  # a shift in its parameter's units; its square is the source's factor, 64
MOMENTUM = 0.1  # share of a batch in BatchNorm's running statistics; torch's default
SCALE = 1 / 9  # of the logits
AT_ONCE = 100  # images whose patches are in memory at once


class Whitening(nn.Module):
    """Whiten patches of 2x2 pixels by fixed filters, the components and their negatives.

    Before ``fit``, the filters pick single values.

    Attributes:
        mean: float (C, 1, 1), subtracted from the images.
        weight: float (8 C, C, 2, 2).
        bias: the only parameter, (8 C,).
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        single = torch.eye(channels * SIDE**2).view(-1, channels, SIDE, SIDE)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("weight", torch.cat([single, -single]))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def fit(self, data: ImageSet) -> None:
        """Take the filters from the images; the same images give the same filters."""
        mean, components = whitening(data)
        self.mean.copy_(mean.view_as(self.mean))
        self.weight.copy_(torch.cat([components, -components]))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float() - self.mean, self.weight, self.bias)


@torch.no_grad()
def whitening(data: ImageSet) -> tuple[Tensor, Tensor]:
    """Find the linear map after which the components of 2x2 patches are uncorrelated.

    Each has the variance v / (v + eps) then, where v was the variance of its direction.

    Returns:
        The mean of each channel, float64 (C,), and the filters, float64 (4 C, C, 2, 2), from the
        largest v to the smallest.
    """
    channels = data.info.channels
    seen = torch.linspace(0, len(data) - 1, min(len(data), IMAGES)).long()
    count, size = 0, channels * SIDE**2
    total, products = torch.zeros(size).double(), torch.zeros(size, size).double()
    for part in chunks(len(seen), AT_ONCE):
        x, _ = data.batch(seen[part], torch.device("cpu"))
        patches = F.unfold(x.double(), SIDE).transpose(1, 2).reshape(-1, size)
        count += len(patches)
        total += patches.sum(0)
        products += patches.T @ patches
    mean = total / count
    variances, directions = torch.linalg.eigh(products / count - mean.outer(mean))
    variances, directions = variances.flip(0).clamp_min(0), directions.T.flip(0)
    # An eigenvector has no sign: its first large entry is made positive. Rounding could change
    # which entry is the largest.
    large = directions.abs() >= directions.abs().amax(1, keepdim=True) / 2
    first = large.int().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, first).sign()
    eps = (EPS * variances.mean()).clamp_min(LEAST)
    filters = directions / (variances + eps).sqrt()[:, None]
    return mean.view(channels, -1).mean(1), filters.view(size, channels, SIDE, SIDE)


class Norm(nn.BatchNorm2d):
    """BatchNorm that shifts and does not scale, with an eighth of the shift as its parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM, affine=False)
        self.eighth = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            torch.ones_like(self.eighth),
            GAIN * self.eighth,
            self.training,
            MOMENTUM,
            self.eps,
        )


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution whose first ``inputs`` outputs begin as the inputs themselves."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


class Block(nn.Module):
    """A block: conv3x3-pool-BN-GELU-conv3x3-BN-GELU; it halves the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs), Norm(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Whitening, three blocks of ``width``, 4 and 4 times ``width`` channels, and a linear layer.

    Raises:
        ValueError: if the images are too small to be halved three times after the whitening.
    """

    def __init__(self, width: int, info: DatasetInfo) -> None:
        super().__init__()
        if min(info.height, info.width) <= 8:
            raise ValueError(
                f"images are {info.height} x {info.width}; airbench needs sides of at least 9 "
                "pixels; choose another victim"
            )
        self.whitening = Whitening(info.channels)
        self.blocks = nn.Sequential(
            Block(len(self.whitening.weight), width),
            Block(width, 4 * width),
            Block(4 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, info.num_classes, bias=False)

    def prepare(self, data: ImageSet) -> None:
        """Take the whitening from the training images."""
        self.whitening.fit(data)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.gelu(self.whitening(x)))
        # Pooling over all of it: the gradient of adaptive pooling is not repeatable on a GPU.
        x = F.max_pool2d(x, (x.shape[2], x.shape[3]))
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits * SCALE
