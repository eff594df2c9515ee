"""ResNet-8 with 16-32-64 channels behind a 4x4 stem of stride 2, for quick first results.

It has 78,378 parameters for 10 classes.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((1, 1, 1), 16, info.num_classes, info.channels, stem_stride=2)
