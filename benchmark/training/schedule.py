"""Learning rates that fall along a cosine."""

from __future__ import annotations

import math


def cosine(lr: float, done: float, total: float = 1.0) -> float:
    """Return the learning rate after ``done`` of ``total``: ``lr`` at the start, 0 at the end.

    Args:
        done, total: in one unit, such as epochs or steps; ``done`` alone is a share, 0..1.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * done / total))
