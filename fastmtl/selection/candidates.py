"""The rows that may be chosen, and their exact ranking in a stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from fastmtl.seeds import scrambled


@dataclass(frozen=True)
class Candidates:
    """The rows that may be chosen: `row_ids (n,)` and `task_ids (n,)` int64, `scores (n,)` float, higher is better.

    `scores` is None for selectors that do not ask for any. A row whose score is NaN is never a candidate. `tasks` names
    the tasks by id; `utilities (T,)` values each of them, higher is better, for selectors that ask for it.
    """

    row_ids: np.ndarray
    task_ids: np.ndarray
    scores: np.ndarray | None = None
    tasks: tuple[str, ...] = ()
    utilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row_ids)

    def top(self, k: int, rng: np.random.Generator) -> np.ndarray:
        """Positions (k,), best score first; equal scores in an order drawn from `rng` and the row ids alone.

        Storage order never decides (FastMTL ranked half-precision sigmoids, whose ties did).
        """
        assert self.scores is not None
        starts = range(0, len(self), BLOCK)
        blocks = ((self.row_ids[start : start + BLOCK], self.scores[start : start + BLOCK]) for start in starts)
        return top_k(blocks, k, int(rng.integers(2**63)))

    def of_tasks(self, task_ids: np.ndarray) -> np.ndarray:
        """Positions (m,) of the rows of some tasks, ascending."""
        return np.flatnonzero(np.isin(self.task_ids, task_ids))

    def at(self, positions: np.ndarray) -> Candidates:
        """The rows at some positions alone."""
        scores = None if self.scores is None else self.scores[positions]
        return replace(self, row_ids=self.row_ids[positions], task_ids=self.task_ids[positions], scores=scores)

    def ranking(self, rng: np.random.Generator) -> np.ndarray:
        """Positions (n,) of all rows, ordered as by `top`."""
        return self.top(len(self), rng)


BLOCK = 1 << 20
"""Rows that `Candidates.top` looks at together."""


def top_k(blocks: Iterable[tuple[np.ndarray, np.ndarray]], k: int, salt: int) -> np.ndarray:
    """Positions (k,) int64 of the best scores over blocks of (row_ids, scores), counted through all blocks, best first.

    Exact, in memory that grows with k and the block, not with the rows: the k best of what was seen are kept. Ties go
    by a hash of row id and salt; no score may be NaN.
    """
    positions, row_ids = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    scores = np.empty(0, dtype=np.float32)
    worst = -np.inf
    seen = 0
    for block_ids, block in blocks:
        assert not np.isnan(block).any(), "a row without a score is no candidate"
        passing = np.flatnonzero(block >= worst)
        positions = np.concatenate([positions, passing + seen])
        row_ids = np.concatenate([row_ids, block_ids[passing]])
        scores = np.concatenate([scores, block[passing]])
        seen += len(block)
        if len(scores) > 2 * k:
            best = _best(row_ids, scores, k, salt)
            positions, row_ids, scores = positions[best], row_ids[best], scores[best]
            worst = scores.min() if k else np.inf
    best = _best(row_ids, scores, k, salt)
    return positions[best][np.lexsort((scrambled(row_ids[best], salt), -scores[best]))]


def _best(row_ids: np.ndarray, scores: np.ndarray, k: int, salt: int) -> np.ndarray:
    """Positions of the k best, in any order; all of them if there are no more."""
    if k >= len(scores) or not k:
        return np.arange(min(k, len(scores)))
    worst = np.partition(scores, -k)[-k]
    above, tied = np.flatnonzero(scores > worst), np.flatnonzero(scores == worst)
    order = np.argsort(scrambled(row_ids[tied], salt))
    return np.concatenate([above, tied[order[: k - len(above)]]])
