"""A small GLUE task as primary, and a pile in which a known share of the rows are of the same task, under another name.

What a selection finds in such a pile can be counted, on real text: the rows of `ARCHIVE` carry the hidden flag
`relevant`, the rows of the other tasks do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.sources import BATCH_ROWS, checked_pool
from fastmtl.data.sources.glue import ParquetFolder, from_parquet
from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.options import Count, Natural, Portion, checked
from fastmtl.seeds import generator
from fastmtl.tasks import GLUE, TaskSpec

ARCHIVE, FLAG = "archive", "relevant"
"""The task that the related rows are hidden under, and the column that says which rows are related."""


@dataclass(frozen=True)
class Drawn:
    """Rows of a GLUE task of a folder, drawn at random without replacement.

    Args:
        root: The folder.
        glue: The task's name there.
        rows: Split -> (first, last + 1) place in a random order of its rows, which is the same for one `seeds` entry.
        seeds: Split -> seed of that order.
        relevant: The hidden flag of the training rows; null: they have none.
    """

    root: str
    glue: str
    rows: Mapping[str, tuple[int, int]] = field(hash=False)
    seeds: Mapping[str, int] = field(hash=False)
    relevant: bool | None
    labels_are_codes = True

    def fingerprint(self, task: TaskSpec) -> str:
        drawn = [[split, *self.rows[split], self.seeds[split]] for split in task.splits]
        original = replace(GLUE[self.glue], splits=task.splits)
        return digest([ParquetFolder(self.root).fingerprint(original), drawn, self.relevant])

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        table = pa.Table.from_batches(ParquetFolder(self.root).batches(GLUE[self.glue], split))
        start, stop = self.rows[split]
        order = generator("pile", self.glue, split, self.seeds[split]).permutation(len(table))
        table = table.take(order[start:stop])
        if self.relevant is not None:
            table = table.append_column(FLAG, pa.array([int(self.relevant)] * len(table), pa.int8()))
        yield from table.to_batches(BATCH_ROWS)


@checked
def pile_tasks(
    root: str, primary: str, unrelated: Sequence[str], share: Portion = 0.03, size: Count = 5000, rows: Count = 500,
    validation: Count = 1000, seed: Natural = 0,
) -> tuple[TaskSpec, ...]:  # fmt: skip
    """The primary, `ARCHIVE`, and the unrelated tasks, each with its rows.

    Args:
        root: A folder with GLUE as `<task>/<split>.parquet`.
        primary: A GLUE task, of which `rows` training rows are kept.
        unrelated: GLUE tasks that fill the pile in equal parts, those of them with fewer rows by all that they have.
        share: Share of the pile that are further training rows of the primary's task.
        size: Training rows of the pile.
        rows: Training rows of the primary; none of them is in the pile.
        validation: Rows of its validation split that are read, at most, the same for every seed.
        seed: Draws all training rows. Of one seed, the related rows of a smaller share are among those of a larger one.

    Raises:
        UserError: A task is no GLUE task of the folder, or it has too few rows for the share.
    """
    named = from_parquet(root, [primary, *unrelated])
    related = round(share * size)
    if related < 2:
        raise UserError(f"data.source.share={share} of size={size} is {related} rows, fewer than two; raise share")
    have = _training_rows(root, primary)
    if rows + related > have:
        raise UserError(
            f"data.source.share={share} of size={size} takes {related} rows of {primary!r} beside the primary's "
            f"{rows}, but there are {have}; lower size or share"
        )
    seeds = {"train": seed, "validation": 0}

    def part(name: str, task: TaskSpec, places: Mapping[str, tuple[int, int]], relevant: bool | None) -> TaskSpec:
        source = Drawn(root, task.name, dict(places), seeds, relevant)
        splits = {split: task.splits[split] for split in places}
        return replace(task, name=name, splits=splits, flag=None if relevant is None else FLAG, source=source)

    own, *others = named
    tasks = [
        part(own.name, own, {"train": (0, rows), "validation": (0, validation)}, None),
        part(ARCHIVE, own, {"train": (rows, rows + related)}, True),
    ]
    counts = _filled(size - related, {task.name: _training_rows(root, task.name) for task in others})
    tasks += [part(task.name, task, {"train": (0, counts[task.name])}, False) for task in others if counts[task.name]]
    return checked_pool(tasks)


def _filled(wanted: int, have: Mapping[str, int]) -> dict[str, int]:
    """Rows of each task: equal parts, of a task that has fewer all, so that they add up to those wanted."""
    if wanted > sum(have.values()):
        there = f"{', '.join(have)} have {sum(have.values())}" if have else "no task has any"
        raise UserError(
            f"data.source.size asks for {wanted} unrelated rows, but {there}; lower size or name more tasks in "
            "data.source.unrelated"
        )
    counts, left = {}, wanted
    for i, name in enumerate(sorted(have, key=have.__getitem__)):
        counts[name] = min(have[name], left // (len(have) - i))
        left -= counts[name]
    return counts


@lru_cache(maxsize=64)
def _training_rows(root: str, name: str) -> int:
    path = ParquetFolder(root).path(GLUE[name], "train")
    if not path.exists():
        raise UserError(f"task {name!r}: no file {path} for split 'train'; check data.root={root!r}")
    return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
