"""A user's own files: each split of a task is one CSV, TSV, JSONL, Parquet or CoNLL file, labels by name."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import yaml

from fastmtl.data.sources import BATCH_ROWS, checked_pool, glue, hash_files, hub
from fastmtl.errors import UserError
from fastmtl.options import OptionError, checked
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class FileSource:
    """Files below `root`; a task's splits are their paths."""

    root: str = "."
    labels_are_codes = False

    def fingerprint(self, task: TaskSpec) -> str:
        return hash_files(tuple(str(self._path(task, split)) for split in task.splits))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        path = self._path(task, split)
        try:
            yield from _read(path, [*task.text, task.label, *([task.flag] if task.flag else [])])
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise UserError(f"task {task.name!r}: {path} cannot be read: {str(error).splitlines()[0]}") from error

    def _path(self, task: TaskSpec, split: str) -> Path:
        path = Path(self.root).expanduser() / task.splits[split]
        if not path.is_file():
            raise UserError(
                f"task {task.name!r}: split {split!r} names {str(path)!r}, which is not a file; correct the path"
            )
        return path


@checked
def from_yaml(config: str | None) -> tuple[TaskSpec, ...]:
    """The tasks listed under `tasks:` of a YAML file; file paths are relative to its own folder.

    A task is one of

    - files of your own: `{name, kind, text, label, labels, splits: {train: FILE, ...}}`;
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
        return (TaskSpec.from_dict(values, FileSource(str(folder))),)
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


def _read(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Record batches of a file by its ending; CSV and TSV cells come as text, so that '001' and 'NA' stay as typed."""
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        parse = pyarrow.csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",", newlines_in_values=True)
        names = pyarrow.csv.open_csv(path, parse_options=parse).schema.names
        as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        yield from pyarrow.csv.open_csv(path, parse_options=parse, convert_options=as_text)
    elif ending in (".jsonl", ".ndjson"):
        # Types of the first block hold for the columns in use; what other columns turn into does not matter.
        schema = pa.schema([field for field in pyarrow.json.open_json(path).schema if field.name in columns])
        parse_json = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        yield from pyarrow.json.open_json(path, parse_options=parse_json)
    elif ending == ".parquet":
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(BATCH_ROWS)
    elif ending == ".conll":
        yield from _read_conll(path, columns)
    else:
        raise UserError(f"{path}: ending {ending!r} is not read; use .csv, .tsv, .jsonl, .parquet or .conll")


def _read_conll(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of words and of what stands beside them, named by their numbers: "0" is the first column, "-1" the last.

    Where the last is asked for as "0" too, there is no "-1": words without tags.
    """
    sentences = _sentences(path)
    while part := list(islice(sentences, BATCH_ROWS)):
        width = len(part[0])
        places = {str(place): place for place in range(width)}
        for name in columns:
            if re.fullmatch(r"-\d+", name) and str(place := width + int(name)) not in columns and place in range(width):
                places[name] = place
        yield pa.RecordBatch.from_pydict({name: [row[place] for row in part] for name, place in places.items()})


def _sentences(path: Path) -> Iterator[list[tuple[str, ...]]]:
    """The columns of each sentence: one word a line, cut at tabs or blanks, and empty lines between sentences.

    A line with # is a comment before a sentence's first word alone, for # is a word too.
    """
    width = 0
    words: list[list[str]] = []
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(chain(lines, [""]), 1):
            if line.startswith("-DOCSTART-") or (line.startswith("#") and not words):
                continue
            if line.strip():
                words.append(line.strip("\n").split("\t") if "\t" in line else re.split(" +", line.strip(" \n")))
                width, found = width or len(words[0]), len(words[-1])
                if found != width:
                    raise UserError(f"{path}: line {number} has {found} columns, not {width} as the first; mend it")
            elif words:
                yield list(zip(*words))
                words = []
