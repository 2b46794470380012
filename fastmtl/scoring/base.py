"""What a scorer is: it declares what it needs, may prepare a state once, and then values rows shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from torch import nn

from fastmtl.data.pool import TaskPool
from fastmtl.models.inference import Inference

Needs = Literal["nothing", "encoder", "heads", "discriminator"]
"""The model that a scorer reads: none, the encoder with its initial weights, a proxy with task heads, or a proxy with
task heads and a task discriminator."""


@dataclass(frozen=True)
class ScoringInputs:
    """What a scorer may read.

    Args:
        tasks: Names of the T tasks that the proxy knows, in the order of the scores' rows.
        primary: The task for which rows are selected.
        pool: Token ids and texts of all tasks, as the scorer's encoder reads them.
        target: (m,) positions of the primary's training rows that may be read; held-out rows are not among them.
        rows: Task -> (n,) positions of all auxiliary training rows that can be selected or scored.
        model: What `Scorer.needs` asks for, in eval mode and on `inference.device`; None for `nothing`.
        inference: How forward passes run.
        seed: A seed that no other purpose has.
    """

    tasks: tuple[str, ...]
    primary: str
    pool: TaskPool
    target: np.ndarray
    rows: Mapping[str, np.ndarray]
    model: nn.Module | None
    inference: Inference
    seed: int

    def row_ids(self, task: str, positions: np.ndarray) -> np.ndarray:
        """(n,) the rows' numbers in the pool, by which they are hashed: no other row has the same."""
        return self.pool.starts[self.pool.index(task)] + positions


class Scorer(Protocol):
    """A way to value rows; a frozen dataclass whose fields are its cache key.

    Optional attributes: `loss`, ce or bce, that of a discriminator which it needs (ce by default); `uses_seed`, True if
    it draws at random by `inputs.seed`; `flops(inputs, lengths)`, what scoring rows of so many tokens takes, unless it
    is one forward pass of the model's encoder.

    A scorer that has `prepare(inputs, out) -> records` gets a folder of its own to fill before the first row is scored:
    tables of n-grams, centroids, gradients of the primary. That folder is an artifact, and comes back as `state`.
    """

    needs: ClassVar[Needs]
    per_primary: ClassVar[bool]
    """True: scores (1, n) are for one primary, and another primary computes its own. False, for scorers that read a
    proxy alone: scores (T, n) serve each of the proxy's tasks as primary."""

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """Value some rows of one task.

        Args:
            inputs: See `ScoringInputs`.
            state: The folder that `prepare` filled; None where the scorer has no `prepare`.
            task: The task that the rows belong to.
            positions: (n,) int64, their positions in its training split.

        Returns:
            (T, n) or (1, n) float32 without NaN; higher is better.
        """
        ...
