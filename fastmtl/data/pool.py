"""Token ids of every task and split, cached once and memory-mapped; all training rows under one stable row id."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fastmtl.data.columns import checked_columns
from fastmtl.errors import UserError
from fastmtl.progress import progress
from fastmtl.seeds import generator
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import HIDDEN_LABEL

log = logging.getLogger(__name__)


class Tokenize(Protocol):
    """Texts to token ids; what a tokenizer of `fastmtl.models.encoder` offers."""

    def __call__(self, first: list[str], second: list[str] | None) -> tuple[list[list[int]], list[int]]:
        """Ids of each row, special tokens included, and where its second segment starts (row length if none)."""
        ...

    def words(self, rows: list[list[str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of each row of words, and for each id the place of the word that begins there, or -1.

        Each word has an id at least; those beyond the longest row are left out.
        """
        ...


@dataclass(frozen=True)
class TokenRows:
    """One split of one task, memory-mapped. n rows, N tokens in all."""

    ids: np.ndarray
    """(N,) uint16 or uint32, row after row."""
    offsets: np.ndarray
    """(n + 1,) int64."""
    second: np.ndarray
    """(n,) uint16: position in the row at which the second segment starts; the row's length if there is none."""
    labels: np.ndarray
    """(n,) or (n, C) float32 as the kind of task encodes them, 0 for a row of tags; NaN where hidden."""
    folder: Path
    split: str
    flags: np.ndarray | None = None
    """(n,) int8: hidden relevance flag, for reports only."""
    tags: np.ndarray | None = None
    """(N,) int16, of a tagging task: at the first token of a word its tag's code, or -1 in a hidden row; elsewhere
    -100."""

    @classmethod
    def open(cls, folder: Path, split: str) -> TokenRows:
        """Map the files that `write_task` wrote."""
        files = {
            name: folder / f"{split}.{name}.npy" for name in ("ids", "offsets", "second", "labels", "flags", "tags")
        }
        arrays = {name: np.load(file, mmap_mode="r") for name, file in files.items() if file.exists()}
        return cls(**arrays, folder=folder, split=split)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens a row."""
        return np.diff(self.offsets)

    @cached_property
    def hidden(self) -> np.ndarray:
        """(n,) bool: rows whose label is not known."""
        return np.isnan(self.labels.reshape(len(self), -1)).any(1)

    @cached_property
    def words(self) -> np.ndarray:
        """(n,) int64: words a row of a tagging task, as far as its tokens were kept."""
        assert self.tags is not None
        return np.add.reduceat(self.tags != HIDDEN_LABEL, self.offsets[:-1], dtype=np.int64)

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """The text columns and label of some rows as the source gave them; `TaskPool.texts` names the labels."""
        with pa.memory_map(str(self.folder / f"{self.split}.arrow")) as file:
            table = pa.ipc.open_file(file).read_all()
            return [table.slice(int(row), 1).to_pylist()[0] for row in rows]  # `take` would read the whole file


def write_task(folder: Path, task: TaskSpec, tokenize: Tokenize) -> dict[str, Any]:
    """Tokenize every split of a task into `folder` in one pass; returns rows, tokens and truncated rows per split."""
    counts = {split: _write_split(folder, task, split, tokenize) for split in task.splits}
    (folder / "task.json").write_text(json.dumps({"task": task.to_dict(), "counts": counts}, indent=1))
    return {"examples": sum(c["rows"] for c in counts.values()), "tokens": sum(c["tokens"] for c in counts.values())}


def _write_split(folder: Path, task: TaskSpec, split: str, tokenize: Tokenize) -> dict[str, int]:
    parts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    ids_path = folder / f"{split}.ids.bin"  # ids go straight to disk: they are what grows
    with open(ids_path, "wb") as ids_file, progress(f"tokenize {task.name}/{split}", "row") as bar:
        writer: Any = None
        start = 0
        assert task.source is not None
        for batch in task.source.batches(task, split):
            if not batch.num_rows:
                continue
            columns = checked_columns(batch, task, split, start, task.source.labels_are_codes)
            if columns.tags is None:
                ids, starts = tokenize(*(columns.texts if len(columns.texts) == 2 else (columns.texts[0], None)))
            else:
                ids, begins = tokenize.words(columns.texts[0])
                starts = [len(row) for row in ids]
                parts["tags"] += [
                    np.where(np.array(words) >= 0, codes[words], HIDDEN_LABEL).astype(np.int16)  # at first tokens
                    for codes, words in zip(columns.tags, begins)
                ]
            np.fromiter(chain.from_iterable(ids), np.uint32).tofile(ids_file)
            parts["lengths"].append(np.fromiter(map(len, ids), np.int64))
            parts["second"].append(np.asarray(starts, dtype=np.uint16))
            parts["labels"].append(columns.labels)
            if columns.flags is not None:
                parts["flags"].append(columns.flags)
            if writer is None:
                writer = pa.ipc.new_file(str(folder / f"{split}.arrow"), columns.shown.schema)
            writer.write_batch(columns.shown)
            start += len(ids)
            bar.update(len(ids))
        if writer is None or start == 0:
            raise UserError(
                f"task {task.name!r}: split {split!r} has no rows; remove it from the task or fill the file"
            )
        writer.close()
    arrays = {name: np.concatenate(some) for name, some in parts.items()}
    if task.of_kind.reads == "row" and split != "test":
        _check_varied(arrays["labels"], task, split)
    arrays["offsets"] = np.concatenate([[0], np.cumsum(arrays.pop("lengths"))])
    _compact(ids_path, folder / f"{split}.ids.npy")
    for name, array in arrays.items():
        np.save(folder / f"{split}.{name}.npy", array)
    return {"rows": start, "tokens": int(arrays["offsets"][-1])}


def _check_varied(labels_n: np.ndarray, task: TaskSpec, split: str) -> None:
    """Equal labels teach nothing; where they measure, there is a score, but it must not be taken for more."""
    if len(labels_n) < 2 or np.ptp(labels_n, axis=0).any():
        return
    only = task.of_kind.label_text(labels_n[0], task)
    found = f"task {task.name!r}, split {split!r}: all {len(labels_n)} labels are {only!r}"
    if split == "train":
        raise UserError(f"{found}, which teaches nothing; check the column {task.label!r}, or leave the task out")
    log.warning("%s; scores on it say little", found)


def _compact(raw: Path, target: Path) -> None:
    """Rewrite the raw uint32 ids as .npy, in uint16 where the largest id allows (it halves what scoring reads)."""
    ids = np.memmap(raw, dtype=np.uint32, mode="r")
    narrow = np.uint16 if int(ids.max()) < 2**16 else np.uint32
    out = np.lib.format.open_memmap(target, mode="w+", dtype=narrow, shape=ids.shape)
    for start in range(0, len(ids), step := 1 << 24):
        out[start : start + step] = ids[start : start + step]
    out.flush()
    raw.unlink()


class TaskPool:
    """All rows of all tasks; training rows have a `row_id` (int64): the task's start plus the row's place in its file.

    `cut` maps a task to the number of training rows that are kept: a random subset, the same for every run seed, or for
    a task in `draws` the one that belongs to this number. The others keep their ids and are never handed out. T tasks,
    N training rows.
    """

    def __init__(
        self, folders: Sequence[Path], cut: Mapping[str, int] | None = None, draws: Mapping[str, int] | None = None
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.cut, self.draws = dict(cut or {}), dict(draws or {})
        infos = [json.loads((folder / "task.json").read_text()) for folder in self.folders]
        self.tasks = tuple(TaskSpec.from_dict(info["task"]) for info in infos)
        self.names = tuple(task.name for task in self.tasks)
        self._rows = {
            (task.name, split): TokenRows.open(folder, split)
            for task, folder in zip(self.tasks, self.folders)
            for split in task.splits
        }
        sizes = [len(self._rows[name, "train"]) if self.has_split(name, "train") else 0 for name in self.names]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        """(T + 1,) int64: first row id of each task, and N."""

    def __reduce__(self) -> Any:  # a pickled pool is its folders: the maps are opened again where it arrives
        return TaskPool, (self.folders, self.cut, self.draws)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def task(self, name: str) -> TaskSpec:
        return self.tasks[self.index(name)]

    def index(self, name: str) -> int:
        """The task's id: its place in `tasks`."""
        if name not in self.names:
            raise UserError(f"primary={name!r} is not a task of this data; choose from {', '.join(self.names)}")
        return self.names.index(name)

    def split(self, name: str, split: str) -> TokenRows:
        if not self.has_split(name, split):
            raise UserError(f"task {name!r} has no split {split!r}; it has {', '.join(self.task(name).splits)}")
        return self._rows[name, split]

    def has_split(self, name: str, split: str) -> bool:
        """Whether the task has rows for it."""
        return (name, split) in self._rows

    def rows_of(self, name: str) -> np.ndarray:
        """(n,) int64: the row ids of a task's kept training rows, ascending."""
        t = self.index(name)
        start, size = int(self.starts[t]), int(self.starts[t + 1] - self.starts[t])
        keep = self.cut.get(name, size)
        if keep >= size:
            return np.arange(start, start + size)
        draw = [self.draws[name]] if name in self.draws else []
        return start + np.sort(generator("cut", name, *draw).permutation(size)[:keep])

    def task_of(self, row_ids: np.ndarray) -> np.ndarray:
        """(n,) int64: the task id of each row."""
        return np.searchsorted(self.starts, row_ids, side="right") - 1

    def local(self, row_ids: np.ndarray) -> np.ndarray:
        """(n,) int64: each row's place in its task's training file."""
        return row_ids - self.starts[self.task_of(row_ids)]

    def by_task(self, row_ids: np.ndarray) -> dict[str, np.ndarray]:
        """Row ids as positions in the training file of each task that occurs, in pool order."""
        return {task.name: positions for task, _, positions in self._parts(row_ids)}

    def _parts(self, row_ids: np.ndarray) -> Iterator[tuple[TaskSpec, np.ndarray, np.ndarray]]:
        """Each task that occurs, where its rows are among `row_ids`, and their positions in its training file."""
        tasks, local = self.task_of(row_ids), self.local(row_ids)
        for t in np.unique(tasks):
            yield self.tasks[t], np.flatnonzero(tasks == t), local[tasks == t]

    def sample(self, per_task: int, seed: int, fold: int = 0, tasks: Sequence[str] | None = None) -> np.ndarray:
        """Row ids of `per_task` rows of each of `tasks` (all) without replacement; folds 0 and 1 are disjoint.

        At most half of a task is taken, so that each task keeps candidates and a second fold exists.
        """
        picks = []
        for name in tasks or self.names:
            rows = self.rows_of(name)
            take = min(per_task, len(rows) // 2)
            if take < 1:
                raise UserError(f"task {name!r} has {len(rows)} training rows; a proxy sample needs at least two")
            order = generator("sample", name, seed).permutation(len(rows))
            picks.append(np.sort(rows[order[fold * take : (fold + 1) * take]]))
        return np.concatenate(picks)

    def candidates(self, primary: str, exclude: np.ndarray | None = None) -> np.ndarray:
        """Row ids of all auxiliary tasks' kept rows, ascending, less `exclude`."""
        parts = [self.rows_of(name) for name in self.names if name != primary]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return rows if exclude is None else np.setdiff1d(rows, exclude, assume_unique=True)

    def texts(self, row_ids: np.ndarray) -> list[dict[str, Any]]:
        """Rows for people to read, in the order asked for: task, text columns, and the label by name or value."""
        out: list[dict[str, Any]] = [{} for _ in row_ids]
        for task, where, positions in self._parts(row_ids):
            rows = self.split(task.name, "train")
            for i, place, row in zip(where, positions, rows.texts(positions)):
                if rows.tags is None:
                    row["label"] = task.of_kind.label_text(rows.labels[place], task)
                else:
                    row = {name: " ".join(items) for name, items in row.items()}
                out[i] = {"task": task.name, **row}
        return out

    def flags_of(self, row_ids: np.ndarray) -> np.ndarray | None:
        """(n,) int8 hidden relevance flags, or None where a task in question has none. Reports alone may ask."""
        out = np.zeros(len(row_ids), dtype=np.int8)
        for task, where, positions in self._parts(row_ids):
            if (flags := self.split(task.name, "train").flags) is None:
                return None
            out[where] = flags[positions]
        return out


def chunks(order: np.ndarray, lengths: np.ndarray, max_tokens: int, max_rows: int) -> Iterator[np.ndarray]:
    """Cut rows, sorted by length, into batches whose padded size is at most `max_tokens` (a longer row goes alone)."""
    start = 0
    while start < len(order):
        # lengths grow along `order`, so the last row of a batch sets its width
        stop = start + 1
        while stop < len(order) and stop - start < max_rows and lengths[order[stop]] * (stop - start + 1) <= max_tokens:
            stop += 1
        yield order[start:stop]
        start = stop
