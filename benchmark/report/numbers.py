"""Format numbers for reports, and choose the colour of an accuracy."""

from __future__ import annotations

import math
from functools import lru_cache

ABSENT = "-"

DOUBTED = "the number is in doubt: it means nothing, for the reason given."

# From pale to dark with falling lightness throughout, so that it also reads in grey and with any
# colour vision.
RAMP = ("#fbf1d3", "#dbe8c8", "#abd5c5", "#74b8c6", "#4690ba", "#2b639f", "#1a3b74")


def percent(share: float, std: float = math.nan) -> str:
    """A share in % with one decimal, and with its spread if known: ``74.1 ± 0.8``.

    NaN becomes ``-``.
    """
    if math.isnan(share):
        return ABSENT
    return f"{100 * share:.1f}" if math.isnan(std) else f"{100 * share:.1f} ± {100 * std:.1f}"


def marked(text: str, doubted: object) -> str:
    """The text of a number, with a ``!`` behind it if it is in doubt."""
    return f"{text}!" if doubted and text != ABSENT else text


def number(value: float) -> str:
    """A number with one decimal, without negative zero; ``-`` for NaN."""
    return ABSENT if math.isnan(value) else f"{round(value, 1) + 0.0:.1f}"


def signed(points: float) -> str:
    """A number with its sign and one decimal, without negative zero; ``-`` for NaN."""
    return ABSENT if math.isnan(points) else f"{round(points, 1) + 0.0:+.1f}"


def times(value: float) -> str:
    """A multiple with two digits or so: ``1.02×``, ``3.9×``, ``120×``; ``-`` for NaN."""
    if math.isnan(value):
        return ABSENT
    return f"{value:.2f}×" if value < 2 else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"


def p_value(p: float) -> str:
    """A p-value as ``p = 0.031``, ``p = 0.0005`` or ``p < 0.0001``.

    It never says ``p = 0``, which no test can show.
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.{3 if p >= 0.001 else 4}f}"


@lru_cache(4096)
def shade(share: float) -> tuple[str, str]:
    """Background and text colour for an accuracy.

    The text is black or white, whichever has the better contrast.
    """
    position = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    left = min(int(position), len(RAMP) - 2)
    low, high = (tuple(int(RAMP[i][k : k + 2], 16) for k in (1, 3, 5)) for i in (left, left + 1))
    rgb = [round(a + (b - a) * (position - left)) for a, b in zip(low, high, strict=True)]
    linear = [
        value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in rgb
    ]
    # relative luminance as WCAG defines it
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    background = "#" + "".join(f"{value:02x}" for value in rgb)
    return background, "#000000" if luminance > 0.179 else "#ffffff"
