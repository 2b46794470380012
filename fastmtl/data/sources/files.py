"""A user's own files: each split of a task is one CSV, TSV, JSONL, Parquet, Arrow or CoNLL file, labels by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from fastmtl.data.sources import checked_pool, glue, hash_files, hub
from fastmtl.data.sources.faults import fault_of, wrong_delimiter
from fastmtl.data.sources.formats import UNREADABLE, Reading, read
from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.options import OptionError, checked
from fastmtl.tasks import TaskSpec

_READING = tuple(field.name for field in fields(Reading))
AS_THE_ENDING_SAYS = Reading()


@dataclass(frozen=True)
class FileSource:
    """Files below `root`; a task's splits are their paths."""

    root: str = "."
    reading: Reading = AS_THE_ENDING_SAYS
    labels_are_codes = False

    def fingerprint(self, task: TaskSpec) -> str:
        files = hash_files(tuple(str(self._path(task, split)) for split in task.splits))
        return files if self.reading == AS_THE_ENDING_SAYS else digest([files, self.reading])

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        path = self._path(task, split)
        columns = [*task.text, task.label, *([task.flag] if task.flag else [])]
        try:
            for batch in read(path, columns, self.reading):
                if found := wrong_delimiter(batch.schema.names, columns):
                    raise UserError(
                        f"task {task.name!r}: {path.name} uses {found!r} between columns; set delimiter: {found!r}"
                    )
                yield self._carved(self._renamed(batch, task), task, split)
        except UNREADABLE as error:
            raise UserError(f"task {task.name!r}: {fault_of(path, self.reading, error)}") from error

    def _renamed(self, batch: pa.RecordBatch, task: TaskSpec) -> pa.RecordBatch:
        names = self.reading.rename_labels
        if not names or task.label not in batch.schema.names:
            return batch
        values = [
            [names.get(str(tag), str(tag)) for tag in value]
            if isinstance(value, list)
            else names.get(str(value), value)
            for value in batch.column(task.label).to_pylist()
        ]
        texts = [value if value is None or isinstance(value, list) else str(value) for value in values]
        return batch.set_column(batch.schema.get_field_index(task.label), task.label, pa.array(texts))

    def _carved(self, batch: pa.RecordBatch, task: TaskSpec, split: str) -> pa.RecordBatch:
        """The rows that are the split's, where train and validation share a file."""
        share = self.reading.validation_share
        if share is None or split == "test" or any(name not in batch.schema.names for name in task.text):
            return batch
        held_out = held_for_validation([batch.column(name).to_pylist() for name in task.text], share)
        return batch.filter(pa.array(held_out if split == "validation" else ~held_out))

    def _path(self, task: TaskSpec, split: str) -> Path:
        path = Path(self.root).expanduser() / task.splits[split]
        if not path.is_file():
            raise UserError(
                f"task {task.name!r}: split {split!r} names {str(path)!r}, which is not a file; correct the path"
            )
        return path


def held_for_validation(texts: Sequence[Sequence[Any]], share: float) -> np.ndarray:
    """(n,) bool: the rows that a task without a validation file validates on, by their text columns."""
    from fastmtl.data.duplicates import Texts  # slow to import, and needed for such tasks alone

    columns = [[" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in column] for column in texts]
    return Texts(*columns).keys() < share * 2.0**64


@checked
def from_yaml(config: str | None) -> tuple[TaskSpec, ...]:
    """The tasks listed under `tasks:` of a YAML file; file paths are relative to its own folder.

    A task is one of

    - files of your own: `{name, kind, text, label, labels, splits: {train: FILE, ...}}`, and the options of `Reading`;
    - a GLUE task: `{name: mrpc, source: glue}`, or with `root: FOLDER` from `FOLDER/mrpc/train.parquet`;
    - a data set of the Hub: `{name, source: hub, dataset: ID, config: NAME, kind, text, ...}`, whose labels are codes
      unless `labels_are_codes: false`;
    - the tasks of a class or function of yours: `{source: my_module.my_tasks, option: value}`. Numbers, true, false and
      null are such; all else is text.
    """
    if config is None:
        raise UserError("data=files needs the YAML that declares your tasks; pass data.config=FILE.yaml")
    path = Path(config).expanduser()
    try:
        # BaseLoader keeps every scalar as typed: labels named no and yes must not turn into booleans.
        listing = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        raise OptionError("config", f"={config!r} does not exist; pass the YAML that declares your tasks") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError("config", f"={config!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(listing, dict) or not isinstance(listing.get("tasks"), list) or not listing["tasks"]:
        raise OptionError("config", f"={config!r} has no list `tasks:`; see `Your own files` in the README")
    tasks: list[TaskSpec] = []
    for entry in listing["tasks"]:
        if not isinstance(entry, dict):
            problem = f"={config!r}: {entry!r} is not a task; give name, kind, text, labels, splits"
            raise OptionError("config", problem)
        tasks += _declared(entry, path.parent)
    return checked_pool(tasks)


def _declared(entry: Mapping[str, Any], folder: Path) -> tuple[TaskSpec, ...]:
    values = dict(entry)
    source = values.pop("source", "files")
    if source == "files":
        return (_of_files(values, folder),)
    if source == "glue":
        name, root = values.pop("name", None), values.pop("root", None)
        if values:
            raise UserError(f"task {name!r}: a GLUE task has its own {next(iter(values))}; give name, source and root")
        if root is None:
            return glue.from_hub([str(name)])
        return glue.from_parquet(str(folder / Path(str(root)).expanduser()), [str(name)])
    if source == "hub":
        if "dataset" not in values:
            raise UserError(f"task {values.get('name')!r}: source=hub needs the id of its data set; give dataset")
        where: dict[str, Any] = {key: values.pop(key) for key in ("dataset", "config", "revision") if key in values}
        if "labels_are_codes" in values:
            where["labels_are_codes"] = _typed(values.pop("labels_are_codes"))
        return (TaskSpec.from_dict(values, hub.HubSource(**where)),)
    return _made(source, {key: _typed(value) for key, value in values.items()})


def _of_files(values: dict[str, Any], folder: Path) -> TaskSpec:
    given = {key: values.pop(key) for key in _READING if key in values}
    try:
        reading = Reading(**{key: _typed(value) if isinstance(value, str) else value for key, value in given.items()})
    except UserError as error:
        raise UserError(f"task {values.get('name')!r}: {error}") from None
    if reading.validation_share is not None and isinstance(splits := values.get("splits"), dict):
        if "validation" in splits:
            raise UserError(
                f"task {values.get('name')!r} has a validation file, and validation_share={reading.validation_share} "
                "asks for another; leave one out"
            )
        values["splits"] = {**splits, "validation": splits.get("train", "")}
    return TaskSpec.from_dict(values, FileSource(str(folder), reading))


def _made(source: Any, options: Mapping[str, Any]) -> tuple[TaskSpec, ...]:
    """The tasks that a class or function gives."""
    module, _, called = str(source).rpartition(".")
    try:
        make = getattr(import_module(module), called)
    except (ImportError, AttributeError, ValueError):
        raise UserError(
            f"source={source!r} is unknown; use files, glue, hub, or the path of a function that gives tasks"
        ) from None
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise UserError(f"source={source!r} does not take the options {dict(options)} ({error})") from None
    given = make(**options)
    tasks = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(task, TaskSpec) for task in tasks):
        raise UserError(f"source={source!r} gives no tasks; return a list of TaskSpec, each with its source")
    return tasks


def _typed(value: Any) -> Any:
    """Numbers, true, false and null as such: they were read as text for the sake of labels."""
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    try:
        typed = json.loads(value)
    except ValueError:
        return value
    return typed if isinstance(typed, int | float | None) else value
