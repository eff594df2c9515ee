"""Poison and purify a set, with its checks: what a stage and the functions for arrays share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.api import Attack, Context, Defense
from benchmark.data import ImageSet
from benchmark.running.clock import Clock
from benchmark.running.global_random import watch_hooks
from benchmark.running.verify import unchanged, verify_poison, verify_purified


@dataclass(frozen=True)
class Crafted:
    """A poisoned or purified set, the seconds by each clock that it took, and facts to record."""

    images: ImageSet
    seconds: Mapping[str, float]
    facts: dict[str, Any]


def poison(attack: Attack, clean: ImageSet, ctx: Context) -> Crafted:
    """Poison a set and verify the result. Draws from global generators are noted in ``ctx``.

    Raises:
        ValueError: if the result breaks a promise of attacks, such as the budget.
        Exception: whatever the attack raises.
    """
    watch_hooks(attack, ctx)
    ctx.info = clean.info
    with unchanged(clean, f'attack "{attack.name}"'):
        clock = Clock(ctx.device)
        poisoned = attack.poison(clean, ctx)
        seconds = clock.seconds()
    return Crafted(poisoned, seconds, {**verify_poison(clean, poisoned, attack), **ctx.notes})


def purify(defense: Defense, protected: ImageSet, ctx: Context) -> Crafted:
    """Purify a set and verify the result. Draws from global generators are noted in ``ctx``.

    Raises:
        ValueError: if the result breaks a promise of defenses, such as the order of the images.
        Exception: whatever the defense raises.
    """
    watch_hooks(defense, ctx)
    ctx.info = protected.info
    with unchanged(protected, f'defense "{defense.name}"'):
        clock = Clock(ctx.device)
        purified = defense.purify(protected, ctx)
        seconds = clock.seconds()
    facts = {**verify_purified(protected, purified, defense), **ctx.notes}
    return Crafted(purified, seconds, facts)
