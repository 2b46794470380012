"""The stage `pool`: the token ids of a task under one tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastmtl.data.pool import TaskPool, write_task
from fastmtl.data.rows import RowSet
from fastmtl.models.encoder import EncoderSpec, TokenizerSpec, tokenizer_of
from fastmtl.stages.base import Context, Stage
from fastmtl.store import Artifact
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True, eq=False)
class TokenIds(Stage):
    """One task as token ids: an artifact of its own, so that adding a task tokenizes that task alone."""

    kind = "pool"
    task: TaskSpec
    tokenizer: TokenizerSpec

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        return write_task(out, self.task, tokenizer_of(self.tokenizer.encoder))


def tokens(context: Context, tasks: Sequence[TaskSpec], encoder: EncoderSpec) -> list[Artifact]:
    """The token ids of each task."""
    return [context.get(TokenIds(task, TokenizerSpec(encoder))) for task in tasks]


def open_pool(
    context: Context, tasks: Sequence[TaskSpec], encoder: EncoderSpec, rows_per_task: Mapping[str, int] | None = None,
    draws: Mapping[str, int] | None = None,
) -> TaskPool:  # fmt: skip
    """All rows of the tasks as an encoder reads them; see `TaskPool` for `rows_per_task` (its `cut`) and `draws`."""
    folders = tuple(artifact.path for artifact in tokens(context, tasks, encoder))
    return _opened(folders, tuple((rows_per_task or {}).items()), tuple((draws or {}).items()))


def pool_of(context: Context, encoder: EncoderSpec, *row_sets: RowSet | None) -> TaskPool:
    """All rows of the tasks of some row sets."""
    tasks = {task.name: task for rows in row_sets if rows is not None for task in rows.tasks}
    return open_pool(context, list(tasks.values()), encoder)


@lru_cache(maxsize=16)
def _opened(
    folders: tuple[Path, ...], cut: tuple[tuple[str, int], ...], draws: tuple[tuple[str, int], ...]
) -> TaskPool:
    return TaskPool(folders, dict(cut), dict(draws))


def training_rows(rows_per_task: int | Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int]:
    """Task -> number of training rows that are kept; a task that is not in it keeps all."""
    if rows_per_task is None:
        return {}
    return dict(rows_per_task) if isinstance(rows_per_task, Mapping) else dict.fromkeys(names, rows_per_task)
