"""Selectors of whole tasks, or of rows within tasks that were chosen first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, SkipValidation

from fastmtl.errors import UserError
from fastmtl.options import Natural, Number, options
from fastmtl.selection.base import Selector
from fastmtl.selection.candidates import Candidates
from fastmtl.selection.rows import Random

Inner = Annotated[Any, SkipValidation]


class WithinTasks(ABC):
    """Chooses tasks, then rows of them by the selector `rows`, or all their rows where they have fewer."""

    rows: Selector

    @property
    def needs(self) -> Collection[Any]:
        return self.rows.needs

    @property
    def uses_budget(self) -> bool:
        return self.rows.uses_budget

    @property
    def takes_all(self) -> bool:
        return self.rows.takes_all

    @abstractmethod
    def chosen(self, candidates: Candidates, rng: np.random.Generator) -> np.ndarray | None:
        """Ids of the chosen tasks, best first; None where the utilities that decide are not known yet."""

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        tasks = self.chosen(candidates, rng)
        within = candidates if tasks is None else candidates.at(candidates.of_tasks(tasks))
        if self.uses_budget:  # a share is one of all candidates
            return min(self.rows.size(candidates, budget, rng), len(within))
        return self.rows.size(within, budget, rng)

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        tasks = self.chosen(candidates, rng)
        assert tasks is not None
        positions = candidates.of_tasks(tasks)
        return positions[self.rows.select(candidates.at(positions), min(k, len(positions)), rng)]


@options
class PickedTasks(WithinTasks):
    """k rows of hand-picked auxiliary tasks, chosen among them by `rows`."""

    tasks: tuple[str, ...]
    rows: Inner = Field(default_factory=Random)

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(
                f"selection.selector.tasks={list(self.tasks)!r}: give one or more task names, each once, as [a,b]"
            )

    def check(self, auxiliary: Sequence[str]) -> None:
        """A `UserError` unless all tasks are among the auxiliary ones."""
        for name in self.tasks:
            if name not in auxiliary:
                known = ", ".join(auxiliary)
                raise UserError(f"selection.selector.tasks names {name!r}, no auxiliary task; choose from {known}")

    def chosen(self, candidates: Candidates, rng: np.random.Generator) -> np.ndarray:
        return np.array([candidates.tasks.index(name) for name in self.tasks])


@options
class BestTasks(WithinTasks):
    """k rows, chosen by `rows`, of the `top` auxiliary tasks of highest utility and of all above `threshold`.

    AutoSeM's rule (Guo et al. 2019, section 5.2) is the default; `threshold=null` takes exactly `top` tasks, `top=0`
    those above the threshold alone.
    """

    top: Natural = 2
    threshold: Number | None = 0.5
    rows: Inner = Field(default_factory=Random)

    def __post_init__(self) -> None:
        if self.threshold is None and self.top == 0:
            raise UserError("selection.selector.top=0 with threshold=null takes no task; set one of them")

    @property
    def needs(self) -> Collection[Any]:
        return (*self.rows.needs, "utilities")

    def check(self, auxiliary: Sequence[str]) -> None:
        """A `UserError` unless there are as many auxiliary tasks as are asked for."""
        if self.top > len(auxiliary):
            known = f"{len(auxiliary)} auxiliary tasks: {', '.join(auxiliary)}"
            raise UserError(f"selection.selector.top={self.top}, but there are {known}; lower it")

    def chosen(self, candidates: Candidates, rng: np.random.Generator) -> np.ndarray | None:
        """See `WithinTasks`; equal utilities in random order."""
        if candidates.utilities is None:
            return None
        shuffled = rng.permutation(np.unique(candidates.task_ids))
        ranked = shuffled[np.argsort(-candidates.utilities[shuffled], kind="stable")]
        above = 0 if self.threshold is None else int(np.sum(candidates.utilities[ranked] > self.threshold))
        return ranked[: max(above, self.top)]
