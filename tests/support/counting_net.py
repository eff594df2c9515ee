"""A surrogate that is quick to train and counts the images that go through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.catalogue.protocol import Protocol
from benchmark.catalogue.registry import Registry
from benchmark.data import DatasetInfo, ImageSet


class CountingNet(nn.Module):
    """A network of convolution, BatchNorm, ReLU, pooling and one linear layer.

    ``images`` counts the images that it saw since the counter was last set to 0.
    """

    def __init__(self, info: DatasetInfo) -> None:
        super().__init__()
        self.images = 0
        self.features = nn.Sequential(
            nn.Conv2d(info.channels, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
        )
        self.head = nn.Linear(8 * 16, info.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def build_counting_net(
    name: str,
    info: DatasetInfo,
    seed: int,
    registry: Registry | None = None,
    train: ImageSet | None = None,
) -> CountingNet:
    """Replace ``benchmark.training.train.build_victim``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CountingNet(info).to(memory_format=torch.channels_last)


def short_protocol(name: str) -> Protocol:
    """Return one protocol under any name.

    The expectations of tests of a surrogate then do not depend on the tuning of a suite.
    """
    return Protocol(
        name,
        "",
        epochs=4,
        batch_size=32,
        lr=0.1,
        nesterov=True,
        schedule="onecycle",
        warmup=0.1,
        crop=0,
    )
