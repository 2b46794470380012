"""Rows of a file one by one, for prediction: one that cannot be read is named and kept, and the others go on."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from fastmtl.data.sources.formats import UNREADABLE, Reading, read, sentences
from fastmtl.errors import UserError

BINARY = (".parquet", ".arrow", ".feather")
"""Endings of files that have no lines."""


@dataclass(frozen=True)
class Row:
    """A row; `line` is its first line in the file from 1, of Parquet its number; `fault` is why it cannot be read."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None

    def get(self, name: str) -> Any:
        """The value of a column; a dot leads into a nested field, and "-1" is the last column of CoNLL."""
        if name in self.values:
            return self.values[name]
        if re.fullmatch(r"-\d+", name) and "0" in self.values and int(name[1:]) <= len(self.values):
            return list(self.values.values())[int(name)]
        root, _, inner = name.partition(".")
        nested = self.values.get(root)
        return Row(self.line, nested).get(inner) if inner and isinstance(nested, dict) else None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its ending.

    Cells of CSV and TSV are text as it is written. CoNLL columns have numbers for names, as for training, "0" for the
    first; a row is a sentence and its values are lists.

    Raises:
        UserError: The file cannot be read at all.
    """
    readers = {".csv": _cells, ".tsv": _cells, ".jsonl": _json_lines, ".ndjson": _json_lines, ".conll": _sentences}
    ending = path.suffix.lower()
    if ending not in (*readers, *BINARY):
        raise UserError(f"{path}: ending {ending!r} is not read; use {', '.join([*readers, *BINARY])}")
    if not path.is_file():
        raise UserError(f"{path} is not a file; correct the path")
    try:
        if ending in BINARY:
            rows = chain.from_iterable(batch.to_pylist() for batch in read(path, [], Reading()))
            yield from (Row(number, values) for number, values in enumerate(rows, 1))
            return
        with open(path, "rb") as start:
            encoding = "utf-16" if start.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        # Bytes of another encoding become surrogates, which `_checked` finds: the row is faulty, not the file.
        with open(path, encoding=encoding, errors="surrogateescape", newline="") as file:
            yield from map(_checked, readers[ending](file))
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _checked(row: Row) -> Row:
    bad = re.search("[\ud800-\udfff]", "".join(map(str, row.values.values())))
    if bad is None:
        return row
    clean = {name: str(value).encode("utf-8", "replace").decode() for name, value in row.values.items()}
    return Row(row.line, clean, "it is not UTF-8; save the file as UTF-8")


def _cells(file: TextIO) -> Iterator[Row]:
    header = file.readline()
    file.seek(0)
    lines = csv.reader(file, delimiter=max(",;\t|", key=header.count))
    names = next(lines, [])
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file.name}: column {name!r} occurs {names.count(name)} times; rename one")
    while True:
        line = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, fault=str(error))
            continue
        if cells:
            fits = len(cells) == len(names)
            fault = None if fits else f"{len(cells)} cells, but the header has {len(names)}"
            yield Row(line, {**dict.fromkeys(names), **dict(zip(names, cells))}, fault)


def _json_lines(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, fault=f"is not JSON ({error})")
            continue
        is_object = isinstance(values, dict)
        yield Row(number, values) if is_object else Row(number, fault="is no JSON object; write {column: value}")


def _sentences(file: TextIO) -> Iterator[Row]:
    """A sentence with a line of another width cannot be read."""
    width = 0
    for words in sentences(file):
        width = width or len(words[0][1])
        odd = next(((number, len(cells)) for number, cells in words if len(cells) != width), None)
        fault = f"its line {odd[0]} has {odd[1]} columns, not {width}" if odd else None
        columns = zip(*(cells for _, cells in words))
        yield Row(words[0][0], {str(place): list(column) for place, column in enumerate(columns)}, fault)
