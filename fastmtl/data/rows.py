"""Rows on their way from stage to stage: rows of some tasks, in a fixed order of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastmtl.tasks import TaskSpec


@dataclass(frozen=True, eq=False)
class RowSet(Mapping[str, np.ndarray]):
    """A mapping from task name to (n,) int64 positions in one split, ascending; the order of tasks counts.

    Args:
        tasks: The tasks, each with its source.
        positions: The rows of each.
        split: train, validation or test.
        origin: How the rows came about, as option -> value. It is for reports, which name arms by it; the cache key is
            made of the rows themselves.
    """

    tasks: tuple[TaskSpec, ...]
    positions: tuple[np.ndarray, ...]
    split: str = "train"
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, tasks: Sequence[TaskSpec], rows: Mapping[str, np.ndarray], split: str = "train",
        origin: Mapping[str, Any] | None = None,
    ) -> RowSet:  # fmt: skip
        """The rows in the mapping's own order of tasks."""
        named = {task.name: task for task in tasks}
        positions = tuple(np.asarray(one, dtype=np.int64) for one in rows.values())
        return cls(tuple(named[name] for name in rows), positions, split, origin or {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self.tasks)

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        return {task.name: rows for task, rows in zip(self.tasks, self.positions, strict=True)}

    def only(self, names: Collection[str]) -> RowSet:
        """The rows of some tasks alone, in the same order."""
        kept = [(task, rows) for task, rows in zip(self.tasks, self.positions) if task.name in names]
        return replace(self, tasks=tuple(task for task, _ in kept), positions=tuple(rows for _, rows in kept))

    @property
    def count(self) -> int:
        """Number of rows of all tasks together."""
        return sum(map(len, self.positions))

    @cached_property
    def content(self) -> list[Any]:
        """The split, and for each task, in order, digests of all its rows and of those that are here."""
        chosen = [hashlib.sha256(rows.tobytes()).hexdigest()[:16] for rows in self.positions]
        return [self.split, [[task.content, rows] for task, rows in zip(self.tasks, chosen)]]

    def identity(self) -> list[Any]:
        """See `fastmtl.identity.plain`: `content`."""
        return self.content
