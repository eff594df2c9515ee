"""Canonical JSON, digests and seeds that name results and random streams."""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces.

    NaN and infinities are refused, since they do not compare.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def digest(value: object) -> str:
    """sha256 of the canonical JSON of ``value``, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def axis_seed(*axes: object) -> int:
    """A 63-bit seed for named axes, for example ``axis_seed("poison", key, 0, "init")``.

    Seeds of different axes are independent, and adding an axis elsewhere moves none of them.
    """
    import numpy as np

    entropy = int.from_bytes(
        hashlib.sha256(canonical_json(list(axes)).encode()).digest()[:16], "big"
    )
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
