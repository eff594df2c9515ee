"""The airbench network with 64-256-256 channels: 1,971,352 parameters at 10 classes.

It learns CIFAR-10 in few epochs, with the protocol ``fast``.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._airbench import Airbench


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return Airbench(64, info)
