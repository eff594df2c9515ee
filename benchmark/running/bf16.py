"""Compute bf16 convolutions on processors that have no bf16 arithmetic.

There, torch takes some eight times as long for a convolution in bf16 as in fp32. Numbers of eight
significant bits have exact products in fp32, so a convolution of rounded numbers in fp32, whose
result is rounded, is what bf16 arithmetic gives, apart from the order of its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmark.running.hardware import native_precision


def is_rounded(precision: str, device: str) -> bool:
    """Tell whether convolutions in ``precision`` are rounded fp32 ones on this device."""
    return device == "cpu" and precision == "bf16" and native_precision(device) == "fp32"


@contextmanager
def bf16_by_rounding(enabled: bool) -> Iterator[None]:
    """Within ``torch.autocast``, compute convolutions by rounding operands, results and gradients.

    Without autocast, and for all other functions, nothing changes.
    """
    if not enabled:
        yield
        return
    with _Rounding():
        yield


class _Rounding(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.conv2d, torch.conv_transpose2d) and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                result: Tensor = func(*map(_rounded, args), **(kwargs or {}))
                return result.bfloat16()
        return func(*args, **(kwargs or {}))


def _rounded(value: Any) -> Any:
    """Round a tensor to bf16, kept as fp32; its gradient is rounded too. Other values stay."""
    return value.bfloat16().float() if isinstance(value, Tensor) else value
