"""Compute learning rates that fall along a cosine."""

from __future__ import annotations

import math


def cosine(lr: float, done: float, total: float = 1.0) -> float:
    """Return the learning rate after ``done`` of ``total``: ``lr`` at the start, 0 at the end.

    Args:
        lr: the learning rate at the start.
        done, total: in one unit, such as epochs or steps; without ``total``, ``done`` is a share.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * done / total))
