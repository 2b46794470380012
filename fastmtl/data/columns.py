"""Texts, labels and tags of a source's rows; every way in which they can be wrong is said with the row's number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

HIDDEN = -1
"""In place of the tag of a word that is not known."""


@dataclass(frozen=True)
class Columns:
    """What the pool keeps of n rows."""

    texts: list[list[Any]]
    """Each text column; for a kind that reads words, the words of each row."""
    labels: np.ndarray
    """(n,) or (n, C) float32, as of `TokenRows`."""
    flags: np.ndarray | None
    tags: list[np.ndarray] | None
    """For a kind that reads words: (words,) int16 for each row, all `HIDDEN` where they are not known."""
    shown: pa.RecordBatch
    """For people: the text columns and `label`."""


def checked_columns(batch: pa.RecordBatch, task: TaskSpec, split: str, start: int, codes: bool) -> Columns:
    """A batch of rows, the first of which is row `start` of its split; `UserError` names a row that is wrong."""
    where = f"task {task.name!r}, split {split!r}"
    for name in task.text:
        if name not in batch.schema.names:
            raise UserError(f"{where}: no column {name!r}; the columns are {', '.join(batch.schema.names)}")
    has_label = task.label in batch.schema.names
    if not has_label and split != "test":
        raise UserError(f"{where}: no label column {task.label!r}; the columns are {', '.join(batch.schema.names)}")
    texts = [batch.column(name).to_pylist() for name in task.text]
    raw = batch.column(task.label).to_pylist() if has_label else [None] * batch.num_rows
    flags = _flags(batch, task, where, start)
    read = _words if task.of_kind.reads == "words" else _rows
    return read(texts, raw, flags, task, codes, split == "test", where, start)


def _rows(
    texts: list[list[Any]], raw: list[Any], flags: np.ndarray | None, task: TaskSpec, codes: bool, hidden_allowed: bool,
    where: str, start: int,
) -> Columns:  # fmt: skip
    """Texts and one label per row."""
    texts = [[str(v) if v is not None else "" for v in values] for values in texts]
    for name, values in zip(task.text, texts):
        for i, value in enumerate(values):
            if not value.strip():
                raise UserError(f"{where}: row {start + i} has an empty {name!r}; fill or remove the row")
    kind, labels = task.of_kind, []
    for i, value in enumerate(raw):
        hidden = value is None or value == "" or (codes and value == -1)
        label = kind.hidden(task) if hidden else kind.encode(value, task, codes)
        if np.isnan(label).any() and not (hidden and hidden_allowed):
            leave = ", or leave it empty" if hidden_allowed else ""
            raise UserError(f"{where}: row {start + i} has label {value!r}; {kind.wanted(task)}{leave}")
        labels.append(label)
    shown = pa.RecordBatch.from_arrays(
        [*(pa.array(values, pa.string()) for values in texts), pa.array([str(v) for v in raw], pa.string())],
        names=[*task.text, "label"],
    )
    return Columns(texts, np.array(labels, dtype=np.float32), flags, None, shown)


def _words(
    texts: list[list[Any]], raw: list[Any], flags: np.ndarray | None, task: TaskSpec, codes: bool, hidden_allowed: bool,
    where: str, start: int,
) -> Columns:  # fmt: skip
    """Words, and one tag for each."""
    words = [["" if word is None else str(word) for word in _items(value)] for value in texts[0]]
    tags = [
        _tags(row, _items(given), task, codes, hidden_allowed, f"{where}: row {start + i}")
        for i, (row, given) in enumerate(zip(words, raw))
    ]
    labels = np.array([np.nan if HIDDEN in row else 0 for row in tags], dtype=np.float32)
    named = [None if HIDDEN in row else [task.labels[code] for code in row] for row in tags]
    columns = [pa.array(rows, pa.list_(pa.string())) for rows in (words, named)]
    return Columns([words], labels, flags, tags, pa.RecordBatch.from_arrays(columns, [*task.text, "label"]))


def _flags(batch: pa.RecordBatch, task: TaskSpec, where: str, start: int) -> np.ndarray | None:
    if task.flag is None or task.flag not in batch.schema.names:
        return None
    given = batch.column(task.flag).to_pylist()
    for i, value in enumerate(given):
        if str(value) not in ("0", "1", "False", "True"):
            raise UserError(f"{where}: row {start + i} has {task.flag}={value!r}; the flag is 0 or 1")
    return np.array([str(value) in ("1", "True") for value in given], dtype=np.int8)


def _items(value: Any) -> list[Any]:
    """The words or tags of a row: a list as it is, anything else cut at its blanks."""
    return value if isinstance(value, list) else [] if value is None else str(value).split()


def _tags(
    words: list[str], given: list[Any], task: TaskSpec, codes: bool, hidden_allowed: bool, row: str
) -> np.ndarray:
    """(words,) int16: the code of each word's tag; all `HIDDEN` where none is given."""
    if not words:
        raise UserError(f"{row} has no words in {task.text[0]!r}; fill or remove the row")
    if "" in words:
        raise UserError(f"{row} has an empty word at place {words.index('')}; remove it and its tag")
    if not given and hidden_allowed:
        return np.full(len(words), HIDDEN, dtype=np.int16)
    if len(given) != len(words):
        raise UserError(f"{row} has {len(words)} words and {len(given)} tags; give each word one tag")
    kind = task.of_kind
    found = np.array([kind.encode(tag, task, codes) for tag in given])
    if np.isnan(found).any():
        raise UserError(f"{row} has tag {given[int(np.isnan(found).argmax())]!r}; {kind.wanted(task)}")
    return found.astype(np.int16)
