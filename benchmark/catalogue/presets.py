"""The presets of attacks: ``clean`` and ``official``, with the quirks of released code."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS = ("preset", "mode")  # parameters of attacks that may be official

CLEAN, OFFICIAL = "clean", "official"  # without and with the quirks of released code


def preset_of(params: Mapping[str, object]) -> str | None:
    """``official`` for an attack that has the quirks of released code, ``clean`` without; None if it has no such parameter."""
    found = [params[name] for name in PRESETS if name in params]
    return None if not found else OFFICIAL if OFFICIAL in found else CLEAN
