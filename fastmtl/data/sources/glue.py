"""GLUE: from the Hub data set `nyu-mll/glue`, or from Parquet files with its columns and codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.sources import BATCH_ROWS, checked_pool, hash_files
from fastmtl.data.sources.hub import HubSource
from fastmtl.errors import UserError
from fastmtl.options import OptionError, checked
from fastmtl.tasks import GLUE, TaskSpec


@dataclass(frozen=True)
class ParquetFolder:
    """Tasks as `root/<task>/<split>.parquet`, labels as codes."""

    root: str
    labels_are_codes = True

    def fingerprint(self, task: TaskSpec) -> str:
        return hash_files(tuple(str(p) for split in task.splits if (p := self.path(task, split)).exists()))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        path = self.path(task, split)
        if not path.exists():
            raise UserError(f"task {task.name!r}: no file {path} for split {split!r}; check data.root={self.root!r}")
        try:
            yield from pyarrow.parquet.ParquetFile(path).iter_batches(BATCH_ROWS)
        except pa.ArrowInvalid as error:
            raise UserError(f"task {task.name!r}: {path} cannot be read: {str(error).splitlines()[0]}") from error

    def path(self, task: TaskSpec, split: str) -> Path:
        """The file of one split."""
        return Path(self.root).expanduser() / task.name / f"{task.splits[split]}.parquet"


@checked
def from_parquet(root: str, names: Sequence[str]) -> tuple[TaskSpec, ...]:
    """GLUE tasks of a folder; a task without a file for its test split has no test split."""
    if not Path(root).expanduser().is_dir():
        raise OptionError("root", f"={root!r} is not a folder; point it at a folder with <task>/train.parquet")
    source = ParquetFolder(root)
    tasks = []
    for task in _named(names):
        splits = {k: v for k, v in task.splits.items() if k != "test" or source.path(task, "test").exists()}
        tasks.append(replace(task, splits=splits, source=source))
    return checked_pool(tasks)


@checked
def from_hub(names: Sequence[str], name: str = "nyu-mll/glue", revision: str | None = None) -> tuple[TaskSpec, ...]:
    """GLUE tasks of the Hub data set `name`."""
    return checked_pool([replace(task, source=HubSource(name, task.name, revision)) for task in _named(names)])


def _named(names: Sequence[str]) -> list[TaskSpec]:
    for name in names:
        if name not in GLUE:
            raise OptionError("names", f": task {name!r} is not a GLUE task; choose from {', '.join(GLUE)}")
        if list(names).count(name) > 1:
            raise OptionError("names", f" has {name!r} {list(names).count(name)} times; drop all but one")
    return [GLUE[name] for name in names]
