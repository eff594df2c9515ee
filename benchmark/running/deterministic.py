"""Settings of torch that make a stage repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_up_torch(threads: int = 1) -> None:
    """Makes torch in this process repeatable, for good.

    Args:
        threads: threads of torch. The order of sums, and with it the last bits, depends on their number.
    """
    torch.use_deterministic_algorithms(True)
    # fills every new tensor, which finds bugs and costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


@contextmanager
def deterministic(threads: int = 1) -> Iterator[None]:
    """Makes torch repeatable, as ``set_up_torch`` does, and puts the caller's settings back at the end."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    before = torch.get_num_threads()
    set_up_torch(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(before)
