"""Make torch repeatable: the same stage gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_up_torch(threads: int = 1) -> None:
    """Make torch repeatable for the rest of this process.

    Args:
        threads: the number of torch's threads, on which the order of sums depends and thus the last
            bits of a result.
    """
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor finds bugs, but costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


@contextmanager
def deterministic(threads: int = 1) -> Iterator[None]:
    """Make torch repeatable, and put the caller's settings back at the end.

    Args:
        threads: as in ``set_up_torch``.
    """
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
