"""What a scorer is: it says which proxy it needs and reads scores off it; it neither trains nor writes."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from fastmtl.data.pool import TaskPool
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import ProxyModel


class Scorer(Protocol):
    """A way to value rows; a frozen dataclass, so that its fields are its identity."""

    discriminator: Literal["ce", "bce"] | None
    """The loss of the proxy it needs, or None if it needs no proxy (then `proxy` is None)."""

    def score(
        self, pool: TaskPool, task: str, places: np.ndarray, proxy: ProxyModel | None, how: Inference
    ) -> np.ndarray:
        """(T, n) float32: how useful each row is to each task as primary, higher is better; no NaN.

        `places` (n,) are rows of the training file of `task`; `proxy` is in eval mode on `how.device`, and T are the
        tasks that it was trained on.
        """
        ...
