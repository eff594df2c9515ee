"""The presets of attacks: ``clean`` and ``official``, with the quirks of released code."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS = ("preset", "mode")  # parameters of attacks that may be official

CLEAN, OFFICIAL = "clean", "official"  # without and with the quirks of released code


def preset_of(params: Mapping[str, object]) -> str | None:
    """The preset that the parameters of an attack choose; None without such a parameter."""
    chosen = [params[name] for name in PRESETS if name in params]
    if not chosen:
        return None
    return OFFICIAL if OFFICIAL in chosen else CLEAN
