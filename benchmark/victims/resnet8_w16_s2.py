"""ResNet-8 with 16-32-64 channels, for quick first results: 78,378 parameters at 10 classes.

The stages follow a 4x4 stem of stride 2.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((1, 1, 1), 16, info.num_classes, info.channels, stem_stride=2)
