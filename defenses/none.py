"""No defense: standard training. With attack ``none`` it is the upper bound of the table."""

from __future__ import annotations

from benchmark import Defense, defense


@defense(version=1, cite="uebench: the undefended anchor")
class NoDefense(Defense):
    """Train on the images as they are."""
