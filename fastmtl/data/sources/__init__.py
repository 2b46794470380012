"""Where rows come from: the Hub, GLUE as Parquet, a user's own files, the generated suites.

A source serves single tasks, so that one pool mixes sources; see `fastmtl.tasks.Source`. A data option of the
configuration calls a function, or a class, that gives the tasks of a pool, each with its source.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

BATCH_ROWS = 4096
"""Rows per Arrow record batch."""


def checked_pool(tasks: Sequence[TaskSpec]) -> tuple[TaskSpec, ...]:
    """The tasks of a pool; a `UserError` if two have one name or if one has no source."""
    names = [task.name for task in tasks]
    for task in tasks:
        if names.count(task.name) > 1:
            raise UserError(f"task {task.name!r} is declared {names.count(task.name)} times; rename one, or keep one")
        assert task.source is not None, f"the data option gave task {task.name!r} no source"
    return tuple(tasks)
