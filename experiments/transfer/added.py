"""The suites of the study with the related rows added to the primary's own: what they are worth under its own name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from fastmtl.data.sources.generated import sample_tasks
from fastmtl.data.sources.pile import pile_tasks
from fastmtl.identity import digest
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class Added:
    """The rows of a task, and behind its training rows those of others that are flagged as relevant to it."""

    task: TaskSpec
    others: tuple[TaskSpec, ...]

    @property
    def labels_are_codes(self) -> bool:
        return self.task.source is not None and self.task.source.labels_are_codes

    def fingerprint(self, task: TaskSpec) -> str:
        return digest([one.content for one in (self.task, *self.others)])

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        columns = [*task.text, task.label]
        assert self.task.source is not None
        for batch in self.task.source.batches(self.task, split):
            yield batch.select(columns)
        for other in self.others if split == "train" else ():
            assert other.source is not None
            assert other.flag is not None
            for batch in other.source.batches(other, split):
                yield batch.filter(pa.compute.equal(batch[other.flag], 1)).select(columns)


def with_added(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    """The first task with the relevant rows of all tasks that have its labels; the others as they are."""
    own, *others = tasks
    same = tuple(task for task in others if task.labels == own.labels and task.flag is not None)
    return replace(own, source=Added(own, same)), *others


def pile_with_added(**options: Any) -> tuple[TaskSpec, ...]:
    return with_added(pile_tasks(**options))


def sample_with_added(**options: Any) -> tuple[TaskSpec, ...]:
    return with_added(sample_tasks(**options))
