"""From a folder to its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastmtl.data.discovery.columns import Column, Roles, named, roles
from fastmtl.data.discovery.labels import SHARE, Seen, check_labels, in_order, survey
from fastmtl.data.discovery.layout import layout
from fastmtl.data.discovery.result import Discovery, FoundTask, Question
from fastmtl.data.discovery.sniff import Doubt, sniff
from fastmtl.data.sources.faults import fault_of
from fastmtl.data.sources.formats import UNREADABLE, Reading, class_names, column_names, read
from fastmtl.errors import UserError
from fastmtl.tasks.kinds import kinds

LOOKED_AT = 2000
"""Rows from which columns are understood; labels are counted over all rows."""
EXAMPLES = 3


def discover(folder: Path, primary: str | None = None) -> Discovery:
    """Understand a folder with one file, or one folder of files, per task; nothing is written or trained.

    Args:
        folder: CSV, TSV, JSONL, Parquet, Arrow and CoNLL files; `train`, `dev`, `val`, `validation` or `test` in a name
            says which split a file is.
        primary: The task that needs a validation split; where it has no file a fifth of its training rows is set aside.
            None: every task.

    Returns:
        The tasks, what is uncertain, and what must be mended first.

    Raises:
        UserError: No folder, nothing in it that is read, or no task of the primary's name.
    """
    found = layout(Path(folder))
    if primary is not None and primary not in found.tasks and not found.faults:
        raise UserError(f"primary={primary!r} is no task of {str(folder)!r}; it has {', '.join(found.tasks)}")
    tasks, questions, faults = [], [], list(found.faults)
    for name, paths in found.tasks.items():
        try:
            task, doubts = _task(name, paths, Path(folder), carve="validation" not in paths and primary in (None, name))
        except UserError as error:
            faults.append(str(error))
            continue
        tasks.append(task)
        questions += [Question(name, text, option) for text, option in doubts]
    return Discovery(Path(folder), tuple(tasks), tuple(questions), tuple(faults), tuple(found.notes))


def _task(name: str, paths: Mapping[str, Path], folder: Path, carve: bool) -> tuple[FoundTask, list[Doubt]]:
    order = [split for split in ("train", "validation", "test") if split in paths]
    paths = {split: paths[split] for split in order}
    train = paths["train"]
    reading, doubts = _reading(name, paths)
    try:
        columns = [Column(column, values) for column, values in _first_rows(train, reading).items()]
        codes = class_names(train)
        columns = [named(column, codes[column.name]) if column.name in codes else column for column in columns]
        understood = roles(train.name, columns, kinds())
        names = codes.get(understood.label, []) if understood.kind != "regression" else []
        if names:
            reading = replace(reading, rename_labels={str(code): label for code, label in enumerate(names)})
        seen = survey(paths, understood, reading, carve)
        reading = _hidden_test_labels(seen, reading)
    except UNREADABLE as error:
        path = next((path for path in paths.values() if _breaks(path, reading)), train)
        raise UserError(fault_of(path, reading, error)) from None
    doubts += [*understood.doubts, *check_labels(name, seen, understood, carve)]
    if carve:
        held, rows = seen["validation"].rows, seen["train"].rows + seen["validation"].rows
        reading = replace(reading, validation_share=SHARE)
        doubts.append(
            (f"{name} has no validation file; {held} of {rows} rows are set aside", f"validation_share: {SHARE}")
        )
    return _found(name, paths, folder, understood, reading, seen, names, columns), doubts


def _found(
    name: str, paths: Mapping[str, Path], folder: Path, understood: Roles, reading: Reading, seen: Mapping[str, Seen],
    names: list[str], columns: list[Column],
) -> FoundTask:  # fmt: skip
    counts = sum((part.counts for part in seen.values()), Counter[str]())
    labels = [] if understood.kind == "regression" else in_order(counts, names)
    used = {column.name: column.values[:EXAMPLES] for column in columns}
    given = (*understood.text, understood.label)
    return FoundTask(
        name, understood.kind, understood.text, understood.label,
        {label: seen["train"].counts[label] for label in labels},
        {split: path.relative_to(folder).as_posix() for split, path in paths.items()},
        {split: part.rows for split, part in seen.items()},
        tuple(dict(zip(given, row)) for row in zip(*(used[column] for column in given))),
        _options(reading),
    )  # fmt: skip


def _hidden_test_labels(seen: Mapping[str, Seen], reading: Reading) -> Reading:
    """With -1 as no label where it stands in the test split alone, as in published data sets."""
    hidden = [label for label in ("-1", "-1.0") if label in seen.get("test", Seen("")).counts]
    if not hidden or any(label in seen["train"].counts for label in hidden):
        return reading
    for label in hidden:
        del seen["test"].counts[label]
    return replace(reading, rename_labels={**reading.rename_labels, **dict.fromkeys(hidden, "")})


def _options(reading: Reading) -> dict[str, Any]:
    """Those that are not as the ending says, as plain values."""
    usual = Reading()
    changed = {f.name: value for f in fields(Reading) if (value := getattr(reading, f.name)) != getattr(usual, f.name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _reading(name: str, paths: Mapping[str, Path]) -> tuple[Reading, list[Doubt]]:
    """That of the training file, which the other files must share."""
    reading, doubts = sniff(paths["train"])
    for path in list(paths.values())[1:]:
        other, _ = sniff(path)
        if path.suffix.lower() == paths["train"].suffix.lower() and other != reading:
            differs = next(f.name for f in fields(Reading) if getattr(other, f.name) != getattr(reading, f.name))
            if differs == "quoted":  # a file without quotes reads either way
                continue
            raise UserError(
                f"{path.name} has {differs}={getattr(other, differs)!r}, {paths['train'].name} has "
                f"{getattr(reading, differs)!r}; save both files of {name} alike"
            )
    return reading, doubts


def _first_rows(path: Path, reading: Reading) -> dict[str, tuple[Any, ...]]:
    names = column_names(path, reading)
    batches = read(path, names, reading)
    rows = islice(chain.from_iterable(batch.select(_kept(batch, names)).to_pylist() for batch in batches), LOOKED_AT)
    table = list(rows)
    if not table:
        raise UserError(f"{path.name} has a header and no rows; fill it or take it away")
    return {name: tuple(row.get(name) for row in table) for name in names if name in table[0]}


def _kept(batch: pa.RecordBatch, names: list[str]) -> list[str]:
    return [name for name in names if name in batch.schema.names]


def _breaks(path: Path, reading: Reading) -> bool:
    try:
        for _ in read(path, [], reading):
            pass
    except UNREADABLE:
        return True
    return False
