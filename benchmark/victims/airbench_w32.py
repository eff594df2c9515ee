"""The airbench network with 32-128-128 channels, for CPUs: 497,240 parameters at 10 classes.

It learns CIFAR-10 in few epochs, with the protocol ``fast``.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo
from benchmark.victims._airbench import Airbench


def build(info: DatasetInfo) -> nn.Module:
    """Build the untrained network for a data set."""
    return Airbench(32, info)
