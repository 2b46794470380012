"""The order of batches: each batch holds one task, and an epoch visits every row exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastmtl.errors import UserError

TaskBatch = tuple[int, np.ndarray]
"""Which task (its place in the list of lengths), and which of its rows (B,)."""


class Sampling(Protocol):
    """Plans an epoch from integers alone; a frozen dataclass, so that its fields are its identity."""

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        """All batches of one epoch in order. `lengths[t]` (n_t,) are the token counts of task t's rows."""
        ...


@dataclass(frozen=True)
class Proportional:
    """Batches of all tasks in random order, each task as often as it has batches (MT-DNN, Liu et al. 2019).

    Rows are shuffled, then sorted by length within windows of `window` batches, so that a batch pads little while
    its rows still change from epoch to epoch. `window=1` is plain shuffling.
    """

    window: int = 50

    def __post_init__(self) -> None:
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 1:
            raise UserError(f"sampling.window={self.window!r} is not a whole number of 1 or more batches")

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        """See `Sampling`."""
        batches: list[TaskBatch] = []
        for task, lengths_n in enumerate(lengths):
            order = rng.permutation(len(lengths_n))
            for start in range(0, len(order), self.window * batch_size):
                window = order[start : start + self.window * batch_size]
                window = window[np.argsort(lengths_n[window], kind="stable")]
                # Cut from the short end at a random place, so that the incomplete batch is not always the longest rows.
                short = len(window) % batch_size
                cuts = np.arange(batch_size, len(window), batch_size)
                if short and len(cuts):
                    cuts[int(rng.integers(len(cuts) + 1)) :] -= batch_size - short
                batches += [(task, part) for part in np.split(window, cuts)]
        return [batches[i] for i in rng.permutation(len(batches))]


def num_batches(counts: list[int], batch_size: int) -> int:
    """Batches an epoch of one-task batches over `counts` rows a task."""
    return sum(-(-n // batch_size) for n in counts)


def shard(rows: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, float]:
    """One rank's part of a global batch, and the factor for its mean loss.

    Ranks average their gradients; with the factor n_rank * world / n that average is the mean over all n rows even
    when they do not divide evenly. A rank left without rows repeats one with factor 0.
    """
    part = rows[rank::world]
    return (part, len(part) * world / len(rows)) if len(part) else (rows[:1], 0.0)
