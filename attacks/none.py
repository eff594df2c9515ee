"""No attack: the images as they are.

With the defense ``none`` it gives the upper bound, with another defense the price of that defense.
"""

from __future__ import annotations

from benchmark import Attack, Context, ImageSet, attack


@attack(version=1, cite="uebench: the clean anchor", norm="none")
class NoAttack(Attack):
    """Leave the images as they are."""

    def poison(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data
