"""A selector that sets its own size: so many rows of each task."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastmtl.options import Count, options
from fastmtl.selection.candidates import Candidates


@options
class Quota:
    """The `per_task` best rows of each auxiliary task, or all that it has."""

    per_task: Count = 10

    needs: ClassVar[tuple[str, ...]] = ("scores",)
    uses_budget: ClassVar[bool] = False
    takes_all: ClassVar[bool] = False

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        _, counts = np.unique(candidates.task_ids, return_counts=True)
        return int(np.minimum(counts, self.per_task).sum())

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        ranking = candidates.ranking(rng)
        tasks = candidates.task_ids[ranking]
        kept = [np.flatnonzero(tasks == task)[: self.per_task] for task in np.unique(tasks)]
        return ranking[np.sort(np.concatenate([np.empty(0, dtype=np.int64), *kept]))]
