"""Every random choice as a pure function of (seed, what it is for, round, client).

Nothing else in parslfl may make randomness: a resumed or retried piece of work then draws the
same numbers as the first time, on any machine and in any order.

Does not know: what the numbers are used for.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, purpose: str, *path: int) -> int:
    """A 63-bit seed for `purpose` (such as "train") and `path` (such as round, client).

    sha256 keeps the streams apart for neighbouring inputs, which `seed + round` would not.
    """
    text = "/".join([str(seed), purpose, *(str(int(part)) for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """A numpy generator seeded by `derive`."""
    return np.random.default_rng(derive(seed, purpose, *path))


def words(seed: int) -> np.random.SFC64:
    """A fast source of raw 64-bit words (`random_raw`), the same in every version of numpy."""
    return np.random.SFC64(seed)
