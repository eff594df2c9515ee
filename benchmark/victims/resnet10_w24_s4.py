"""ResNet-10 with 24-48 channels, for quick first results: 95,130 parameters at 10 classes.

The stages follow a 4x4 stem of 16 channels. Stem and stages have stride 2.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((2, 2), 24, info.num_classes, info.channels, stem_stride=2, stem_width=16)
