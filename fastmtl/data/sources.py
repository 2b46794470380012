"""Where rows come from: the Hub, GLUE as Parquet files, a user's own files, the generated suites."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import yaml

from fastmtl.data import departments, sample, tagging
from fastmtl.errors import UserError
from fastmtl.tasks import GLUE, TaskSpec

BATCH_ROWS = 4096


class Source(Protocol):
    """Rows of several tasks, streamed as Arrow record batches so that memory stays flat."""

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """All tasks, in the order that fixes task ids."""
        ...

    labels_are_codes: bool
    """True when the label column of a classification task holds codes; False when it holds label names."""

    def fingerprint(self, task: TaskSpec) -> str:
        """Changes when the task's content changes."""
        ...

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """The split's rows in a fixed order."""
        ...


@dataclass(frozen=True)
class Sample:
    """The generated suite: one small primary and auxiliaries of known use to it."""

    seed: int = 0
    labels_are_codes = True
    suite: ClassVar[ModuleType] = sample

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """See `Source`."""
        return self.suite.SPECS

    def fingerprint(self, task: TaskSpec) -> str:
        """See `Source`."""
        rows = json.dumps(_generated(self.suite, **asdict(self))[task.name])
        return hashlib.sha256(rows.encode()).hexdigest()

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        yield from pa.table(_generated(self.suite, **asdict(self))[task.name][split]).to_batches(BATCH_ROWS)


@dataclass(frozen=True)
class Departments(Sample):
    """The generated suite about a mail-order house; the fields are the arguments of `departments.generate`."""

    share: float = 0.3
    noise: float = 0.0
    overlap: float = 0.3
    size: float = 1.0
    shift: float = 0.5
    lookalikes: float = 0.02
    suite: ClassVar[ModuleType] = departments


@dataclass(frozen=True)
class Tagging(Sample):
    """The generated tagging tasks over one language, some of which help each other and some do not."""

    labels_are_codes = False
    suite: ClassVar[ModuleType] = tagging


@lru_cache(maxsize=2)
def _generated(suite: ModuleType, **dials: float) -> dict[str, dict[str, dict[str, list[Any]]]]:
    return suite.generate(**dials)


@dataclass(frozen=True)
class GlueParquet:
    """GLUE tasks as `root/<task>/<split>.parquet`, with the columns and codes of `nyu-mll/glue`."""

    root: str
    names: Sequence[str]
    labels_are_codes = True

    def __post_init__(self) -> None:
        if not Path(self.root).expanduser().is_dir():
            raise UserError(f"data.root={self.root!r} is not a folder; point it at a folder with <task>/train.parquet")

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """See `Source`; a task without a file for its test split has no test split."""
        tasks = _glue_tasks(self.names)
        return tuple(t if self._path(t, "test").exists() else replace(t, splits=_less_test(t)) for t in tasks)

    def fingerprint(self, task: TaskSpec) -> str:
        """See `Source`."""
        return _hash_files(tuple(str(p) for split in task.splits if (p := self._path(task, split)).exists()))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        path = self._path(task, split)
        if not path.exists():
            raise UserError(f"task {task.name!r}: no file {path} for split {split!r}; check data.root={self.root!r}")
        try:
            yield from pyarrow.parquet.ParquetFile(path).iter_batches(BATCH_ROWS)
        except pa.ArrowInvalid as error:
            raise UserError(f"task {task.name!r}: {path} cannot be read: {str(error).splitlines()[0]}") from error

    def _path(self, task: TaskSpec, split: str) -> Path:
        return Path(self.root).expanduser() / task.name / f"{task.splits[split]}.parquet"


@dataclass(frozen=True)
class GlueHub:
    """GLUE tasks from the Hub data set `name`, through `datasets` (which keeps and memory-maps its own copy)."""

    names: Sequence[str]
    name: str = "nyu-mll/glue"
    revision: str | None = None
    labels_are_codes = True

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """See `Source`."""
        return _glue_tasks(self.names)

    def fingerprint(self, task: TaskSpec) -> str:
        """See `Source`."""
        return _hash_hub(self.name, self.revision, task.name, tuple(task.splits.values()))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        yield from _hub_batches(self.name, self.revision, task.name, task.splits[split])


def _hub_batches(name: str, revision: str | None, config: str, split: str) -> Iterator[pa.RecordBatch]:
    import datasets  # slow to import, and needed for the Hub alone

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except (ConnectionError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"data set {name!r} ({config}, {split}) could not be had from the Hub ({reason}); "
            "connect once, or use data=glue_local data.root=FOLDER"
        ) from error
    for table in rows.with_format("arrow").iter(BATCH_ROWS):
        yield from table.combine_chunks().to_batches()


def _less_test(task: TaskSpec) -> dict[str, str]:
    return {split: place for split, place in task.splits.items() if split != "test"}


def _glue_tasks(names: Sequence[str]) -> tuple[TaskSpec, ...]:
    for name in names:
        if name not in GLUE:
            raise UserError(f"task {name!r} is not a GLUE task; choose from {', '.join(GLUE)}")
        if list(names).count(name) > 1:
            raise UserError(f"data.tasks lists {name!r} {list(names).count(name)} times; keep one")
    return tuple(GLUE[name] for name in names)


@dataclass(frozen=True)
class Files:
    """A user's own tasks: each split of a task is one CSV, TSV, JSONL, Parquet or CoNLL file, labels by name.

    `specs` are `TaskSpec` values as mappings, `splits` giving file paths relative to `root`.
    """

    specs: Sequence[Mapping[str, Any]]
    root: str = "."
    labels_are_codes = False

    @classmethod
    def from_yaml(cls, config: str | None) -> Files:
        """Tasks as listed under `tasks:` of a YAML file; its file paths are relative to its own folder."""
        if config is None:
            raise UserError("data=files needs the YAML that declares your tasks; pass data.config=FILE.yaml")
        path = Path(config).expanduser()
        try:
            # BaseLoader keeps every scalar as typed: labels named no and yes must not turn into booleans.
            listing = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        except FileNotFoundError:
            raise UserError(f"data.config={config!r} does not exist; pass the YAML that declares your tasks") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"data.config={config!r} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(listing, dict) or not isinstance(listing.get("tasks"), list) or not listing["tasks"]:
            raise UserError(f"data.config={config!r} has no list `tasks:`; see `Your own files` in the README")
        specs = listing["tasks"]
        names = [spec.get("name") if isinstance(spec, dict) else spec for spec in specs]
        for spec, name in zip(specs, names):
            if not isinstance(spec, dict):
                raise UserError(
                    f"data.config={config!r}: {spec!r} is not a task; give name, kind, text, labels, splits"
                )
            if names.count(name) > 1:
                raise UserError(
                    f"data.config={config!r}: task {name!r} is declared {names.count(name)} times; rename one"
                )
        return cls(specs, str(path.parent))

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """See `Source`."""
        return tuple(TaskSpec.from_dict(spec) for spec in self.specs)

    def fingerprint(self, task: TaskSpec) -> str:
        """See `Source`."""
        return _hash_files(tuple(str(self._path(task, split)) for split in task.splits))

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        path = self._path(task, split)
        try:
            yield from _read(path, [*task.text, *([task.label]), *([task.flag] if task.flag else [])])
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise UserError(f"task {task.name!r}: {path} cannot be read: {str(error).splitlines()[0]}") from error

    def _path(self, task: TaskSpec, split: str) -> Path:
        path = Path(self.root).expanduser() / task.splits[split]
        if not path.is_file():
            raise UserError(
                f"task {task.name!r}: split {split!r} names {str(path)!r}, which is not a file; correct the path"
            )
        return path


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
                width = width or len(words[0])
                if len(words[-1]) != width:
                    raise UserError(
                        f"{path}: line {number} has {len(words[-1])} columns, not {width} as the first; mend it"
                    )
            elif words:
                yield list(zip(*words))
                words = []


def _hash_files(paths: tuple[str, ...]) -> str:
    return _hash_unchanged(tuple((p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in paths))


@lru_cache(maxsize=1024)  # a sweep asks for the same files in every cell
def _hash_unchanged(stats: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in stats:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@lru_cache(maxsize=64)
def _hash_hub(name: str, revision: str | None, config: str, splits: tuple[str, ...]) -> str:
    """Over the rows themselves, so that it is the same whatever the layout of the local copy."""
    total = hashlib.sha256()
    for split in splits:
        for batch in _hub_batches(name, revision, config, split):
            total.update(json.dumps(batch.to_pydict()).encode())  # Arrow's own bytes depend on the chunks
    return total.hexdigest()
