"""ResNet-10 with 16-32-64-128 channels, the CPU victim: 308,826 parameters at 10 classes.

It has one block in each stage.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((1, 1, 1, 1), 16, info.num_classes, info.channels)
