"""Name results and random streams: canonical JSON, digests and seeds."""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def digest(value: object) -> str:
    """Return the sha256 of the canonical JSON of ``value``, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def axis_seed(*axes: object) -> int:
    """Return a 63-bit seed for named axes, such as ``axis_seed("poison", key, 0, "init")``.

    Seeds of different axes are independent. A new axis elsewhere changes no seed.
    """
    import numpy as np

    hashed = hashlib.sha256(canonical_json(list(axes)).encode()).digest()
    entropy = int.from_bytes(hashed[:16], "big")
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
