"""Cache keys: the plain form of a value, and its digest. Order counts wherever the value has an order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

import numpy as np

LATER = {"later": True}
"""Metadata of a field that was added later: at its default it is no part of a key, so that older keys stay."""


def counted(value: Any) -> list[Field[Any]]:
    """The fields of a dataclass that its key is made of."""
    return [one for one in fields(value) if not one.metadata.get("later") or getattr(value, one.name) != one.default]


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the value's plain form."""
    return hashlib.sha256(json.dumps(plain(value), allow_nan=False).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """The value as nested lists of strings, numbers, booleans and None, in the value's own order.

    A value with a method `identity()` is what that returns. Another dataclass is its name, its version if it has one,
    and its fields in order (see `LATER`). A mapping is a list of pairs.

    Raises:
        TypeError: The value is of another type, whose content could not be told from its looks.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if callable(own := getattr(value, "identity", None)) and not isinstance(value, type):
        return plain(own())
    if is_dataclass(value) and not isinstance(value, type):
        version = getattr(type(value), "version", None)
        parts = [[field.name, plain(getattr(value, field.name))] for field in counted(value)]
        return [stable_name(type(value)), *([] if version is None else [version]), parts]
    if isinstance(value, Mapping):
        return [[plain(key), plain(inner)] for key, inner in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(inner) for inner in value]
    raise TypeError(f"{value!r} cannot be part of a cache key; make its class a frozen dataclass")


def stable_name(cls: type) -> str:
    """A class's name, which moving its file does not change; outside this package with the package's name."""
    package = cls.__module__.partition(".")[0]
    return cls.__qualname__ if package == __name__.partition(".")[0] else f"{package}.{cls.__qualname__}"
