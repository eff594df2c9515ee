"""bf16 on processors without bf16 arithmetic: the same numbers as torch's own bf16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.running import bf16
from benchmark.running.bf16 import bf16_by_rounding, is_rounded

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


def _operands(weight_shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 6, 9, 9), weight_shape, (5,))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _with_gradients(convolution: Convolution, operands: list[Tensor]) -> list[Tensor]:
    """Return the result and the gradients of image, weight and bias."""
    operands = [tensor.clone().requires_grad_() for tensor in operands]
    out = convolution(*operands)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    out.backward(upstream.to(out.dtype))  # type: ignore[no-untyped-call]
    return [out.detach(), *(tensor.grad for tensor in operands if tensor.grad is not None)]


@pytest.mark.parametrize(
    ("convolution", "weight_shape"),
    [
        (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (5, 6, 3, 3)),
        (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1), (6, 5, 4, 4)),
    ],
)
def test_operands_results_and_gradients_are_rounded_and_sums_are_not(
    convolution: Convolution, weight_shape: tuple[int, ...]
) -> None:
    """The reference is in float64: rounded operands, exact sums, rounded results."""
    operands = _operands(weight_shape)
    with bf16_by_rounding(True), torch.autocast("cpu", torch.bfloat16):
        ours = _with_gradients(convolution, operands)
    exact = _with_gradients(convolution, [tensor.bfloat16().double() for tensor in operands])
    assert ours[0].dtype == torch.bfloat16
    assert len(ours) == 4
    for mine, reference in zip(ours, exact, strict=True):
        rounded = reference.bfloat16().float()
        # fp32 sums differ from exact ones in their last bits, which seldom decides a rounding.
        assert (mine.float() == rounded).float().mean() > 0.99
        assert torch.allclose(mine.float(), rounded, rtol=2**-7, atol=1e-5)


def test_without_autocast_nothing_is_rounded() -> None:
    x, w = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3)
    with bf16_by_rounding(True):
        assert torch.equal(F.conv2d(x, w), F.conv2d(x, w))
        rounded = F.conv2d(x, w)
    assert torch.equal(rounded, F.conv2d(x, w))
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize(
    ("precision", "device", "native", "expected"),
    [
        ("bf16", "cpu", "fp32", True),
        ("bf16", "cpu", "bf16", False),
        ("fp32", "cpu", "fp32", False),
        ("bf16", "cuda:0", "fp32", False),
    ],
)
def test_rounding_serves_bf16_on_processors_without_it(
    precision: str,
    device: str,
    native: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bf16, "native_precision", lambda device: native)
    assert is_rounded(precision, device) is expected
