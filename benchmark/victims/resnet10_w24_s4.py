"""ResNet-10 with 24-48 channels behind a 4x4 stem of 16, for quick first results.

Stem and stages have stride 2. It has 95,130 parameters for 10 classes.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._resnet import ResNet


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return ResNet((2, 2), 24, info.num_classes, info.channels, stem_stride=2, stem_width=16)
