"""The residual networks: their shortcuts pick pixels as a strided slice does, in another memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import Context, DatasetInfo
from benchmark.training.train import build_victim
from benchmark.victims._resnet import Pointwise


class Sliced(Pointwise):
    """The definition: a 1x1 convolution of every ``step``-th pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, x[:, :, :: self.step, :: self.step])


def train(model: nn.Module, size: int, precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.train().parameters(), 0.05, 0.9, weight_decay=5e-4)
    for _ in range(6):
        x = torch.rand(8, size, size, 3, generator=generator).permute(0, 3, 1, 2)
        y = torch.randint(10, (8,), generator=generator)
        with Context(precision=precision).autocast():
            logits = model(x)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("victim", "size"), [("resnet8_w16_s2", 32), ("resnet10_w24_s4", 32), ("resnet10_w16", 15)]
)
def test_training_gives_the_weights_of_strided_slices(
    victim: str, size: int, precision: str
) -> None:
    info = DatasetInfo("toy", 10, tuple("abcdefghij"), 3, size, size, True)
    model = build_victim(victim, info, 0)
    sliced = copy.deepcopy(model)
    shortcuts = [module for module in sliced.modules() if isinstance(module, Pointwise)]
    assert shortcuts
    for shortcut in shortcuts:
        shortcut.__class__ = Sliced
    start = copy.deepcopy(model.state_dict())
    for network in (model, sliced):
        train(network, size, precision)
    for name, value in model.state_dict().items():
        assert torch.equal(value, sliced.state_dict()[name]), name
    assert not torch.equal(start["head.weight"], model.state_dict()["head.weight"])


def test_the_gradient_of_a_shortcut_stays_in_channels_last_memory() -> None:
    """A slice hands it back in NCHW memory, which makes a training step about a seventh slower."""
    shortcut = Pointwise(8, 16, 2).to(memory_format=torch.channels_last)
    x = torch.rand(2, 6, 6, 8).permute(0, 3, 1, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(shortcut(x).sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
