"""A victim that takes next to no memory or time, for measuring what an attack itself takes.

It is a plugin: ``--plugin perf/linear_net.py``.
"""

from __future__ import annotations

from torch import nn

from benchmark.data import DatasetInfo

SIDE = 10  # of the coarse image


def build(info: DatasetInfo) -> nn.Module:
    """Apply one linear layer to an image averaged down to 10x10."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(SIDE),
        nn.Flatten(),
        nn.Linear(info.channels * SIDE**2, info.num_classes),
    )
