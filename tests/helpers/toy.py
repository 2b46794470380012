"""Rows written in the test, a tokenizer whose ids can be read off the text, and pools of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Rows = Mapping[str, Mapping[str, Mapping[str, list[Any]]]]
"""task -> split -> column -> values."""


@dataclass(frozen=True)
class ToySource:
    """Rows held in memory, handed out `batch_rows` at a time."""

    tasks: tuple[Any, ...]
    rows: Rows = field(repr=False)
    labels_are_codes: bool = False
    batch_rows: int = 2

    def task(self, place: int = 0) -> Any:
        """A task that carries this source."""
        return replace(self.tasks[place], source=self)

    def fingerprint(self, task: Any) -> str:
        return repr(self.rows[task.name])

    def batches(self, task: Any, split: str) -> Iterator[Any]:
        import pyarrow as pa

        yield from pa.table(dict(self.rows[task.name][split])).to_batches(self.batch_rows)


def toy_tokenize(first: list[str], second: list[str] | None) -> tuple[list[list[int]], list[int]]:
    """'3 70000' -> [3, 70000]: a text is its token ids, and a pair is one after the other."""
    heads = [[int(word) for word in text.split()] for text in first]
    tails = [[int(word) for word in text.split()] for text in second] if second else [[] for _ in first]
    return [head + tail for head, tail in zip(heads, tails)], [len(head) for head in heads]


def row_sets(pool: Any, **fields: Any) -> dict[str, Any]:
    """Fields of a `FitJob`, of which `rows` and `evaluated` may be given as {task: positions of training rows}."""
    from fastmtl.data.rows import RowSet

    return {
        name: RowSet.of(pool.tasks, value) if name in ("rows", "evaluated") and value is not None else value
        for name, value in fields.items()
    }


def make_pool(folder: Path, source: ToySource, tokenize: Any = toy_tokenize, cut: Any = None) -> Any:
    """Every task written to its folder, opened as one pool."""
    from fastmtl.data.pool import TaskPool, write_task

    folders = []
    for task in source.tasks:
        folders.append(folder / task.name)
        folders[-1].mkdir(parents=True)
        write_task(folders[-1], replace(task, source=source), tokenize)
    return TaskPool(folders, cut)
