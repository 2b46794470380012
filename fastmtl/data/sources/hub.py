"""Rows of the Hugging Face Hub, through `datasets`, which keeps and memory-maps its own copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import pyarrow as pa

from fastmtl.data.sources import BATCH_ROWS
from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class HubSource:
    """One configuration of a Hub data set; a task's splits are the data set's."""

    dataset: str
    config: str | None = None
    revision: str | None = None
    labels_are_codes: bool = True

    def fingerprint(self, task: TaskSpec) -> str:
        return _hash(self, tuple(task.splits.values()))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        yield from self.read(task.splits[split])

    def read(self, split: str) -> Iterator[pa.RecordBatch]:
        """The rows of one of the data set's own splits."""
        import datasets  # slow to import, and needed for the Hub alone

        try:
            rows = datasets.load_dataset(self.dataset, self.config, split=split, revision=self.revision)
        except (ConnectionError, OSError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:120]
            raise UserError(
                f"data set {self.dataset!r} ({self.config}, {split}) could not be read from the Hub ({reason}); "
                "connect once, or use data=glue_local data.root=FOLDER"
            ) from error
        for table in rows.with_format("arrow").iter(BATCH_ROWS):
            yield from table.combine_chunks().to_batches()


@lru_cache(maxsize=64)
def _hash(source: HubSource, splits: tuple[str, ...]) -> str:
    """Over the rows themselves, so that it is the same whatever the layout of the local copy."""
    total = hashlib.sha256()
    for batch in chain.from_iterable(map(source.read, splits)):
        total.update(json.dumps(batch.to_pydict()).encode())  # Arrow's own bytes depend on the chunks
    return total.hexdigest()
