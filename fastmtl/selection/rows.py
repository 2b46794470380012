"""Selectors of rows: the best, random ones, all, none."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastmtl.options import options
from fastmtl.selection.base import AllOrNothing, Budgeted
from fastmtl.selection.candidates import Candidates


@options
class TopK(Budgeted):
    """The k best scores in one common ranking over all auxiliary tasks (FastMTL, section 3)."""

    needs: ClassVar[tuple[str, ...]] = ("scores",)

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        return candidates.top(k, rng)


@options
class Random(Budgeted):
    """k rows, uniformly without replacement from the same candidates as every other budgeted selector."""

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(candidates))[:k]


@options
class MatchedRandom(Budgeted):
    """As many rows of each task as the inner top-k takes, but drawn at random within the task.

    FastMTL's in-task efficacy control: what is left of the gain is due to the mixture of tasks alone.
    """

    needs: ClassVar[tuple[str, ...]] = ("scores",)
    needs_all_scores: ClassVar[bool] = True
    """It draws from all candidates, which a cascade does not score to the end."""

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        top_tasks = candidates.task_ids[candidates.top(k, rng)]
        shuffled = rng.permutation(len(candidates))
        shuffled_tasks = candidates.task_ids[shuffled]
        picks = [shuffled[shuffled_tasks == t][:count] for t, count in zip(*np.unique(top_tasks, return_counts=True))]
        return rng.permutation(np.concatenate(picks)) if picks else shuffled[:0]


@options
class Full(AllOrNothing):
    """Every row of every auxiliary task, the proxy's own training rows included."""

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        return len(candidates)


@options
class NoAuxiliary(AllOrNothing):
    """No auxiliary row: the single-task baseline."""

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        return 0
