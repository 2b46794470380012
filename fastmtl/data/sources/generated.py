"""The generated suites: texts with hidden relevance flags, and tagging tasks over one language."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any

import pyarrow as pa

from fastmtl.data import sample, tagging
from fastmtl.data.sources import BATCH_ROWS, checked_pool
from fastmtl.options import Natural, checked
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class Generated:
    """Rows that a module of `fastmtl.data` makes from a seed."""

    suite: str
    seed: int
    labels_are_codes: bool

    def fingerprint(self, task: TaskSpec) -> str:
        return hashlib.sha256(json.dumps(_rows(self.suite, self.seed)[task.name]).encode()).hexdigest()

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        yield from pa.table(_rows(self.suite, self.seed)[task.name][split]).to_batches(BATCH_ROWS)


@checked
def sample_tasks(seed: Natural = 0) -> tuple[TaskSpec, ...]:
    """One small primary and auxiliaries of known use to it."""
    return checked_pool([replace(task, source=Generated("sample", seed, True)) for task in sample.SPECS])


@checked
def tagging_tasks(seed: Natural = 0) -> tuple[TaskSpec, ...]:
    """Tagging tasks over one language, some of which help each other and some do not."""
    return checked_pool([replace(task, source=Generated("tagging", seed, False)) for task in tagging.SPECS])


@lru_cache(maxsize=2)
def _rows(suite: str, seed: int) -> dict[str, dict[str, dict[str, list[Any]]]]:
    return import_module(f"fastmtl.data.{suite}").generate(seed)
