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
