"""The check of lengths in [0, 1] units that attacks share."""

from __future__ import annotations


def check_lengths(**lengths: float) -> None:
    """Refuse L-inf lengths outside (0, 1), such as ``eps=8``, and an ``eps`` that rounds to 0.

    Raises:
        ValueError: for the first length at fault; the message says what to write.
    """
    for name, value in lengths.items():
        if value >= 1:
            raise ValueError(
                f"{name}={value:g} is in [0, 1] units; write {value:g}/255, not {value:g}"
            )
        if not value > 0:
            raise ValueError(
                f"{name}={value:g}, expected more than 0, in [0, 1] units, for example 8/255"
            )
        if name == "eps" and value < 0.5 / 255:
            raise ValueError(
                f"eps={value:g} is less than half a level of a pixel, 0.5/255, and rounds to "
                "no change; write 8/255 for eight levels"
            )
