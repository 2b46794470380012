"""What a scorer is: it says which proxy it needs and reads scores off it; it neither trains nor writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from fastmtl.data.pool import TaskPool
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import ProxyModel


@dataclass(frozen=True)
class Proxy:
    """A trained proxy in eval mode, and the row ids (sorted) it was trained on."""

    model: ProxyModel
    trained_on: np.ndarray


class Scorer(Protocol):
    """A way to value rows; a frozen dataclass, so that its fields are its identity."""

    discriminator: Literal["ce", "bce"] | None
    """The loss of the proxy it needs, or None if it needs no proxy (then `proxies` is empty)."""

    def score(self, pool: TaskPool, proxies: list[Proxy], how: Inference) -> np.ndarray:
        """(T, N) float32: how useful row n is to task t as primary, higher is better; NaN = not scored."""
        ...
