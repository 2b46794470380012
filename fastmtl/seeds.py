"""Seeds: one of its own for each purpose, so that one draw never shifts another."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def derive(*purpose: str | int) -> int:
    """A seed made of words and numbers, the same on every machine."""
    return int(hashlib.sha256(json.dumps(list(purpose)).encode()).hexdigest()[:16], 16)


def generator(*purpose: str | int) -> np.random.Generator:
    """A generator of its own for each purpose."""
    return np.random.default_rng(derive(*purpose))


def scrambled(keys: np.ndarray, salt: int = 0) -> np.ndarray:
    """Pseudo-random bits of each key, whichever keys stand beside it; the same on every machine.

    Args:
        keys: (n,) integers of 0 or more.
        salt: Another salt gives other bits.

    Returns:
        (n,) uint64, a one-to-one function of the keys.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    x = keys.astype(np.uint64) + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
