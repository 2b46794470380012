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
from fastmtl.options import Fraction, Natural, Positive, checked
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class Generated:
    """Rows that a module of `fastmtl.data` makes from a seed."""

    suite: str
    seed: int
    labels_are_codes: bool
    dials: tuple[tuple[str, float], ...] = ()

    def _rows(self, task: TaskSpec) -> dict[str, dict[str, list[Any]]]:
        return _generated(self.suite, self.seed, self.dials)[task.name]

    def fingerprint(self, task: TaskSpec) -> str:
        return hashlib.sha256(json.dumps(self._rows(task)).encode()).hexdigest()

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        yield from pa.table(self._rows(task)[split]).to_batches(BATCH_ROWS)


@checked
def sample_tasks(
    seed: Natural = 0, share: Fraction = 0.3, noise: Fraction = 0.0, overlap: Fraction = 0.3, size: Positive = 1.0,
    shift: Fraction = 0.5, lookalikes: Fraction = 0.02,
) -> tuple[TaskSpec, ...]:  # fmt: skip
    """Messages to departments: the primary's score rises with the relevant rows; dials of `sample.generate`."""
    dials = (
        ("share", share), ("noise", noise), ("overlap", overlap), ("size", size), ("shift", shift),
        ("lookalikes", lookalikes),
    )  # fmt: skip
    source = Generated("sample", seed, True, dials)
    return checked_pool([replace(task, source=source) for task in sample.SPECS])


@checked
def tagging_tasks(seed: Natural = 0) -> tuple[TaskSpec, ...]:
    """Tagging tasks over one language, some of which help each other and some do not."""
    return checked_pool([replace(task, source=Generated("tagging", seed, False)) for task in tagging.SPECS])


@lru_cache(maxsize=2)
def _generated(suite: str, seed: int, dials: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    return import_module(f"fastmtl.data.{suite}").generate(seed, **dict(dials))
