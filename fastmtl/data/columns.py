"""Texts, labels and tags of a source's rows; every way in which they can be wrong is said with the row's number."""

from __future__ import annotations

import math
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
    """Of n rows what the pool keeps."""

    texts: list[list[Any]]
    """Each text column; the words of each row where the task is tagging."""
    labels: np.ndarray
    """(n,) float32, as of `TokenRows`."""
    flags: np.ndarray | None
    tags: list[np.ndarray] | None
    """Of a tagging task: (words,) int16 for each row, all `HIDDEN` where they are not known."""
    shown: pa.RecordBatch
    """For people: the text columns and `label`."""


def checked_columns(batch: pa.RecordBatch, task: TaskSpec, split: str, start: int, codes: bool) -> Columns:
    """A batch of rows, the first of which is row `start` of its split; `UserError` names a row that is wrong."""
    where = f"task {task.name!r}, split {split!r}"
    hidden_allowed = split == "test"
    for name in task.text:
        if name not in batch.schema.names:
            raise UserError(f"{where}: no column {name!r}; the columns are {', '.join(batch.schema.names)}")
    has_label = task.label in batch.schema.names
    if not has_label and not hidden_allowed:
        raise UserError(f"{where}: no label column {task.label!r}; the columns are {', '.join(batch.schema.names)}")
    texts = [batch.column(name).to_pylist() for name in task.text]
    raw = batch.column(task.label).to_pylist() if has_label else [None] * batch.num_rows
    flags = _flags(batch, task, where, start)
    if task.kind == "tagging":
        words = [["" if word is None else str(word) for word in _items(value)] for value in texts[0]]
        tags = [
            _tags(row, _items(given), task, codes, hidden_allowed, f"{where}: row {start + i}")
            for i, (row, given) in enumerate(zip(words, raw))
        ]
        labels = np.array([np.nan if HIDDEN in row else 0 for row in tags], dtype=np.float32)
        named = [None if HIDDEN in row else [task.labels[code] for code in row] for row in tags]
        columns = [pa.array(rows, pa.list_(pa.string())) for rows in (words, named)]
        return Columns([words], labels, flags, tags, pa.RecordBatch.from_arrays(columns, [*task.text, "label"]))
    texts = [[str(v) if v is not None else "" for v in values] for values in texts]
    for name, values in zip(task.text, texts):
        for i, value in enumerate(values):
            if not value.strip():
                raise UserError(f"{where}: row {start + i} has an empty {name!r}; fill or remove the row")
    labels = np.empty(batch.num_rows, dtype=np.float32)
    for i, value in enumerate(raw):
        labels[i] = _label(value, task, codes)
        if np.isnan(labels[i]) and not hidden_allowed:
            raise UserError(f"{where}: row {start + i} has label {value!r}; {_wanted(task)}")
        if value not in (None, "", -1) and np.isnan(labels[i]):
            raise UserError(f"{where}: row {start + i} has label {value!r}; {_wanted(task)}, or leave it empty")
    shown = pa.RecordBatch.from_arrays(
        [*(pa.array(values, pa.string()) for values in texts), pa.array([str(v) for v in raw], pa.string())],
        names=[*task.text, "label"],
    )
    return Columns(texts, labels, flags, None, shown)


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
    found = np.array([_label(tag, task, codes) for tag in given])
    if np.isnan(found).any():
        raise UserError(f"{row} has tag {given[int(np.isnan(found).argmax())]!r}; {_wanted(task)}")
    return found.astype(np.int16)


def _label(value: Any, task: TaskSpec, codes: bool) -> float:
    """A label as number; NaN where it is hidden (GLUE writes -1), absent or not of the task."""
    if value is None or value == "" or (codes and value == -1):
        return float("nan")
    if task.kind == "regression":
        try:
            return float(value) if math.isfinite(float(value)) else float("nan")
        except (TypeError, ValueError):
            return float("nan")
    if codes:
        return float(value) if value in range(len(task.labels)) else float("nan")
    text = str(value)
    return float(task.labels.index(text)) if text in task.labels else float("nan")


def _wanted(task: TaskSpec) -> str:
    return f"use one of {', '.join(task.labels)}" if task.labels else "use a number"
