"""Choosing rows: `Candidates` in, positions out. No model, tokenizer, path or config is known here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np

from fastmtl.errors import UserError


class PoolExhausted(UserError):
    """More rows were asked for than there are candidates."""


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

    Exact: the k best of what was seen are kept, and a block's rows below the worst of them are dropped unsorted. So
    memory grows with k and the block, not with the rows. Ties go by a hash of row id and salt; no score may be NaN.
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
    return positions[best][np.lexsort((_scrambled(row_ids[best], salt), -scores[best]))]


def _best(row_ids: np.ndarray, scores: np.ndarray, k: int, salt: int) -> np.ndarray:
    """Positions of the k best, in any order; all of them if there are no more."""
    if k >= len(scores) or not k:
        return np.arange(min(k, len(scores)))
    worst = np.partition(scores, -k)[-k]
    above, tied = np.flatnonzero(scores > worst), np.flatnonzero(scores == worst)
    order = np.argsort(_scrambled(row_ids[tied], salt))
    return np.concatenate([above, tied[order[: k - len(above)]]])


def _scrambled(row_ids: np.ndarray, salt: int) -> np.ndarray:
    """A pseudo-random uint64 a row (splitmix64 finaliser), so that ties do not depend on which rows stand beside it."""
    x = row_ids.astype(np.uint64) + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Selector(Protocol):
    """Chooses exactly k of n candidates; a frozen dataclass, so that its fields are its identity.

    One that first chooses tasks takes all their rows where they have no k.
    """

    @property
    def needs_scores(self) -> bool:
        """Whether a proxy has to be trained and read first."""
        ...

    @property
    def uses_budget(self) -> bool:
        """False when the selector itself says how many rows it takes (all, none)."""
        ...

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """Positions (k,) int64 into `candidates`, without repeats, best first."""
        ...


@dataclass(frozen=True)
class TopK:
    """The k best scores in one common ranking over all auxiliary tasks (FastMTL, section 3)."""

    needs_scores: ClassVar[bool] = True
    uses_budget: ClassVar[bool] = True

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        return candidates.top(k, rng)


@dataclass(frozen=True)
class Random:
    """k rows, uniformly without replacement from the same candidates as every other budgeted selector."""

    needs_scores: ClassVar[bool] = False
    uses_budget: ClassVar[bool] = True

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        return rng.permutation(len(candidates))[:k]


@dataclass(frozen=True)
class MatchedRandom:
    """As many rows of each task as the inner top-k takes, but drawn at random within the task.

    FastMTL's in-task efficacy control: what is left of the gain is due to the mixture of tasks alone.
    """

    needs_scores: ClassVar[bool] = True
    uses_budget: ClassVar[bool] = True

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        top_tasks = candidates.task_ids[candidates.top(k, rng)]
        shuffled = rng.permutation(len(candidates))
        shuffled_tasks = candidates.task_ids[shuffled]
        picks = [shuffled[shuffled_tasks == t][:count] for t, count in zip(*np.unique(top_tasks, return_counts=True))]
        return rng.permutation(np.concatenate(picks)) if picks else shuffled[:0]


@dataclass(frozen=True)
class Full:
    """Every row of every auxiliary task, the proxy's own training rows included."""

    needs_scores: ClassVar[bool] = False
    uses_budget: ClassVar[bool] = False

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        return np.arange(len(candidates))


@dataclass(frozen=True)
class Nothing:
    """No auxiliary row: the single-task baseline."""

    needs_scores: ClassVar[bool] = False
    uses_budget: ClassVar[bool] = False

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        return np.arange(0)


@dataclass(frozen=True)
class PickedTasks:
    """k rows of hand-picked auxiliary tasks, chosen among them by `rows`."""

    tasks: Sequence[str]
    rows: Selector = field(default_factory=Random)

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str) or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(
                f"selection.selector.tasks={self.tasks!r}: give one or more task names, each once, as [a,b]"
            )

    def check(self, auxiliary: Sequence[str]) -> None:
        """A `UserError` unless all tasks are among the auxiliary ones."""
        for name in self.tasks:
            if name not in auxiliary:
                known = ", ".join(auxiliary)
                raise UserError(f"selection.selector.tasks names {name!r}, no auxiliary task; choose from {known}")

    @property
    def needs_scores(self) -> bool:
        """See `Selector`."""
        return self.rows.needs_scores

    @property
    def uses_budget(self) -> bool:
        """See `Selector`."""
        return self.rows.uses_budget

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        return _within(candidates, [candidates.tasks.index(name) for name in self.tasks], self.rows, k, rng)


@dataclass(frozen=True)
class BestTasks:
    """k rows, chosen by `rows`, of the `top` auxiliary tasks of highest utility and of all above `threshold`.

    AutoSeM's rule (Guo et al. 2019, section 5.2) is the default; `threshold=null` takes exactly `top` tasks, `top=0`
    those above the threshold alone.
    """

    top: int = 2
    threshold: float | None = 0.5
    rows: Selector = field(default_factory=Random)

    def __post_init__(self) -> None:
        if isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 0:
            raise UserError(f"selection.selector.top={self.top!r} is not a whole number of 0 or more tasks")
        if self.threshold is None and self.top == 0:
            raise UserError("selection.selector.top=0 with threshold=null takes no task; set one of them")
        if self.threshold is not None and not isinstance(self.threshold, int | float):
            raise UserError(f"selection.selector.threshold={self.threshold!r} is not a number; use a utility or null")

    def check(self, auxiliary: Sequence[str]) -> None:
        """A `UserError` unless there are as many auxiliary tasks as are asked for."""
        if self.top > len(auxiliary):
            raise UserError(
                f"selection.selector.top={self.top}, but there are {len(auxiliary)} auxiliary tasks: "
                f"{', '.join(auxiliary)}; lower it"
            )

    @property
    def needs_scores(self) -> bool:
        """See `Selector`."""
        return self.rows.needs_scores

    @property
    def uses_budget(self) -> bool:
        """See `Selector`."""
        return self.rows.uses_budget

    def chosen(self, utilities: np.ndarray, task_ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Ids of the chosen ones of `task_ids` (m,), best first; equal utilities in random order."""
        shuffled = rng.permutation(task_ids)
        ranked = shuffled[np.argsort(-utilities[shuffled], kind="stable")]
        above = np.zeros(len(ranked), dtype=bool) if self.threshold is None else utilities[ranked] > self.threshold
        return ranked[above | (np.arange(len(ranked)) < self.top)]

    def select(self, candidates: Candidates, k: int, rng: np.random.Generator) -> np.ndarray:
        """See `Selector`."""
        assert candidates.utilities is not None
        chosen = self.chosen(candidates.utilities, np.unique(candidates.task_ids), rng)
        return _within(candidates, chosen, self.rows, k, rng)


def _within(
    candidates: Candidates, task_ids: Sequence[int] | np.ndarray, rows: Selector, k: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions of k rows of some tasks, or of all their rows if they have fewer."""
    positions = candidates.of_tasks(np.asarray(task_ids))
    return positions[rows.select(candidates.at(positions), min(k, len(positions)), rng)]


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
