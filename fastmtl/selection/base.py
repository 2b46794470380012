"""What a selector is: candidates in, positions out. No model, tokenizer, path or configuration is known here."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from fastmtl.errors import UserError
from fastmtl.selection.candidates import Candidates

Needs = Literal["scores", "utilities"]


class PoolExhausted(UserError):
    """More rows were asked for than there are candidates."""


class Selector(Protocol):
    """Chooses exactly `size` of n candidates; a frozen dataclass whose fields are its cache key."""

    @property
    def needs(self) -> Collection[Needs]:
        """What must be known of the candidates: a score of each row, a utility of each task, or nothing."""
        ...

    @property
    def uses_budget(self) -> bool:
        """False when the selector itself says how many rows it takes."""
        ...

    @property
    def takes_all(self) -> bool:
        """Whether the proxy's training rows are candidates too, for selectors that use no budget."""
        ...

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        """How many rows it takes.

        It is asked twice: before anything is trained, without scores and utilities, so that an impossible budget is
        reported early, and with them before it selects. `rng` then starts as it does in `select`.
        """
        ...

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """Positions (k,) int64 into `candidates`, without repeats, best first."""
        ...


class Budgeted:
    """What selectors of as many rows as the budget asks for have in common."""

    needs: ClassVar[Collection[Any]] = ()
    uses_budget: ClassVar[bool] = True
    takes_all: ClassVar[bool] = False

    def size(self, candidates: Candidates, budget: int | float, rng: np.random.Generator) -> int:
        return rows_wanted(budget, len(candidates))


class AllOrNothing:
    """What selectors that value no row have in common: they take the first `size` candidates of all."""

    needs: ClassVar[Collection[Any]] = ()
    uses_budget: ClassVar[bool] = False
    takes_all: ClassVar[bool] = True

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(k)


def check_budget(budget: object) -> int | float:
    """The budget as given, if it is a whole number >= 1 or a share in (0, 1]; else a `UserError`."""
    how = "give a whole number of examples (>= 1) or a share of the candidates in (0, 1]"
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise UserError(f"budget={budget!r} is not a number; {how}")
    if math.isnan(budget) or budget <= 0 or (isinstance(budget, float) and budget > 1):
        raise UserError(f"budget={budget} is out of range; {how}")
    return budget


def rows_wanted(budget: int | float, num_candidates: int) -> int:
    """The exact number of rows a budget means; a share is rounded to the nearest row, at least one."""
    budget = check_budget(budget)
    k = budget if isinstance(budget, int) else max(1, round(budget * num_candidates))
    if k > num_candidates:
        raise PoolExhausted(
            f"budget={budget} is more than the {num_candidates} candidate rows; lower it, or use selection=full"
        )
    return k
