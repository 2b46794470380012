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
    needed = [("column", name) for name in task.text] + [("label column", task.label)] * (split != "test")
    for word, name in needed:
        if name not in batch.schema.names:
            raise UserError(f"{where}: no {word} {name!r}; the columns are {', '.join(batch.schema.names)}")
    texts = [batch.column(name).to_pylist() for name in task.text]
    has_label = task.label in batch.schema.names
    raw = batch.column(task.label).to_pylist() if has_label else [None] * batch.num_rows
    rows = [f"{where}: row {row}" for row in range(start, start + batch.num_rows)]
    read = _words if task.of_kind.reads == "words" else _texts
    columns, labels, tags, shown = read(texts, raw, task, codes, split == "test", rows)
    flags = None
    if task.flag in batch.schema.names:
        given = batch.column(task.flag).to_pylist()
        for row, value in zip(rows, given):
            if str(value) not in ("0", "1", "False", "True"):
                raise UserError(f"{row} has {task.flag}={value!r}; the flag is 0 or 1")
        flags = np.array([str(value) in ("1", "True") for value in given], dtype=np.int8)
    return Columns(columns, labels, flags, tags, pa.RecordBatch.from_arrays(shown, [*task.text, "label"]))


_Read = tuple[list[list[Any]], np.ndarray, list[np.ndarray] | None, list[pa.Array]]
"""Text columns, labels and tags as in `Columns`, and the columns of `shown`."""


def _texts(
    texts: list[list[Any]], raw: list[Any], task: TaskSpec, codes: bool, hidden_allowed: bool, rows: list[str]
) -> _Read:
    """Texts and one label per row."""
    texts = [[str(v) if v is not None else "" for v in values] for values in texts]
    for name, values in zip(task.text, texts):
        for row, value in zip(rows, values):
            if not value.strip():
                raise UserError(f"{row} has an empty {name!r}; fill or remove the row")
    kind, labels = task.of_kind, []
    for row, value in zip(rows, raw):
        hidden = value is None or value == "" or (codes and value == -1)
        label = kind.hidden(task) if hidden else kind.encode(value, task, codes)
        if np.isnan(label).any() and not (hidden and hidden_allowed):
            leave = ", or leave it empty" if hidden_allowed else ""
            raise UserError(f"{row} has label {value!r}; {kind.wanted(task)}{leave}{_meant(value, task)}")
        labels.append(label)
    shown = [pa.array(values, pa.string()) for values in (*texts, [str(value) for value in raw])]
    return texts, np.array(labels, dtype=np.float32), None, shown


def _meant(value: Any, task: TaskSpec) -> str:
    """The label that differs from the value in case or blanks alone, as a question."""
    near = (name for name in task.labels if "".join(name.split()).casefold() == "".join(str(value).split()).casefold())
    return next((f"; did you mean {name!r}?" for name in near), "")


def _words(
    texts: list[list[Any]], raw: list[Any], task: TaskSpec, codes: bool, hidden_allowed: bool, rows: list[str]
) -> _Read:
    """Words, and one tag for each."""
    words = [["" if word is None else str(word) for word in _items(value)] for value in texts[0]]
    tags = [_tags(own, _items(given), task, codes, hidden_allowed, row) for own, given, row in zip(words, raw, rows)]
    labels = np.array([np.nan if HIDDEN in own else 0 for own in tags], dtype=np.float32)
    named = [None if HIDDEN in own else [task.labels[code] for code in own] for own in tags]
    return [words], labels, tags, [pa.array(some, pa.list_(pa.string())) for some in (words, named)]


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
