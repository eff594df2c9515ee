"""ResNet-18 with the CIFAR stem, the papers' victim: 11,173,962 parameters at 10 classes."""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((2, 2, 2, 2), 64, info.num_classes, info.channels)
