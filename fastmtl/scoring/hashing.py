"""Hashes of integers that are the same on every machine, in every process and in every order of the rows."""

from __future__ import annotations

import numpy as np


def mix(keys: np.ndarray, salt: int = 0) -> np.ndarray:
    """Pseudo-random bits of each key.

    Args:
        keys: (n,) integers of 0 or more.
        salt: Another salt gives other bits.

    Returns:
        (n,) uint64, a one-to-one function of the keys.

    Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), increment and finalizer.
    """
    x = keys.astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def gumbel(keys: np.ndarray, salt: int) -> np.ndarray:
    """(n,) float64: standard Gumbel noise that belongs to each key, whichever keys stand beside it."""
    uniform = ((mix(keys, salt) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    return -np.log(-np.log(uniform))
