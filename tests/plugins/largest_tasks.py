"""A selector of tasks: those with most candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from fastmtl.options import Count, options
from fastmtl.selection.candidates import Candidates
from fastmtl.selection.rows import Random
from fastmtl.selection.tasks import Inner, WithinTasks


@options
class LargestTasks(WithinTasks):
    """Rows of the `top` auxiliary tasks with most candidates, chosen among them by `rows`."""

    top: Count = 2
    rows: Inner = Field(default_factory=Random)

    def chosen(self, candidates: Candidates, rng: np.random.Generator) -> np.ndarray:
        tasks, counts = np.unique(candidates.task_ids, return_counts=True)
        shuffled = rng.permutation(len(tasks))
        return tasks[shuffled[np.argsort(-counts[shuffled], kind="stable")[: self.top]]]

    def check(self, auxiliary: Any) -> None:
        """Any number of tasks will do."""
