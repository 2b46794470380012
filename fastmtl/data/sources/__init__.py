"""Where rows come from: the Hub, GLUE as Parquet, a user's own files, the generated suites.

A source serves single tasks, so that one pool mixes sources; see `fastmtl.tasks.Source`. A data option of the
configuration calls a function, or a class, that gives the tasks of a pool, each with its source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

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
        if task.source is None:
            raise UserError(f"task {task.name!r} has no source; give TaskSpec(..., source=...)")
    return tuple(tasks)


def hash_files(paths: tuple[str, ...]) -> str:
    """A digest of the files' content, in order."""
    return _hash_unchanged(tuple((p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in paths))


@lru_cache(maxsize=1024)  # a sweep asks for the same files in every cell
def _hash_unchanged(stats: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in stats:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
