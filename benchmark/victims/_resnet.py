"""Residual networks for small images.

The stem is that of CIFAR networks, a 3x3 convolution of stride 1 without max-pooling, or a 4x4
convolution of stride 2.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pointwise(nn.Conv2d):
    """A 1x1 convolution that picks pixels first; its numbers are those of ``stride=``, bit for bit.

    With ``stride=`` and a number of channels that 8 does not divide, oneDNN 3.12 (torch 2.14)
    writes past its buffers in the backward pass on processors with AVX2 but without AVX-512, and
    the process dies. Pooling over a window of one pixel picks the same pixels as
    ``x[:, :, ::2, ::2]``, but its gradient stays in channels-last memory, which makes the backward
    pass faster.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = stride

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.avg_pool2d(x, 1, self.step))


class BasicBlock(nn.Module):
    """A basic block: conv3x3-BN-ReLU-conv3x3-BN, plus a shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A stem, stages of basic blocks, global average pooling and one linear layer.

    The stages have strides 1, 2, 2, ... and ``width`` channels, doubled from stage to stage. A stem
    of stride 2 has a 4x4 kernel, so that all pixels occur in equally many of its windows. If
    ``stem_width`` differs from ``width``, the first stage has stride 2 too.

    Args:
        blocks: the number of blocks in each stage.
        width: the channels of the first stage.
        num_classes: the number of logits.
        channels: the channels of the images.
        stem_stride: 1 or 2.
        stem_width: the channels of the stem; 0 means ``width``.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: int,
        num_classes: int,
        channels: int = 3,
        stem_stride: int = 1,
        stem_width: int = 0,
    ) -> None:
        super().__init__()
        inputs = stem_width or width
        self.stem = nn.Conv2d(channels, inputs, 2 + stem_stride, stem_stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(inputs)
        layers: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for block in range(count):
                stride = 2 if not block and inputs != outputs else 1
                layers.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        x = self.stages(x)
        logits: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits
