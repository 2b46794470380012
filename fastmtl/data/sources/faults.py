"""Why a file cannot be read, in the words of whoever wrote it: file, line, value and what to do."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fastmtl.data.sources.formats import LINES, TABLES, Reading, delimiter_of, encoding_of

OTHER_FORMATS = {
    b"PK\x03\x04": "a workbook or an archive; save it as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV (UTF-8)",
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"%PDF": "a PDF; save its table as CSV (UTF-8)",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"ARROW1": "an Arrow file; let its name end in .arrow",
    b"<": "HTML or XML, no table: the page of a download, perhaps; save the data itself",
}
"""First bytes of files that people take for text."""
_JSON_TYPES = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
               dict: "an object"}  # fmt: skip
DELIMITERS = (";", "\t", "|", ",")


def wrong_delimiter(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """What stands between the columns of a file whose header was read as one column, if that is what happened."""
    if len(names) != 1 or names[0] in wanted:
        return None
    return next((mark for mark in DELIMITERS if set(wanted) & set(names[0].split(mark)) and mark in names[0]), None)


def fault_of(path: Path, how: Reading, error: Exception) -> str:
    """One line: the file, the first line that is wrong, what is wrong, and what to do.

    Args:
        path: The file.
        how: How it was read.
        error: What the reader said, for faults that are not known here.
    """
    name, ending = path.name, path.suffix.lower()
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        return f"{name} is empty; fill it or take it away"
    if ending == ".parquet":
        return f"{name} is no whole Parquet file; copy or write it again ({_first_line(error)})"
    if ending in (".arrow", ".feather"):
        return f"{name} is no whole Arrow file; copy or write it again ({_first_line(error)})"
    if other := next((words for mark, words in OTHER_FORMATS.items() if start.startswith(mark)), None):
        return f"{name} is {other}"
    if (line := not_decoded(path, how)) is not None:
        return (
            f"{name}, line {line}, is not {how.encoding.upper()}; save it as UTF-8, or set encoding: to what it is "
            "(latin-1, cp1252, utf-16)"
        )
    found = _wrong_line(path, how) if ending in TABLES else _wrong_object(path, how) if ending in LINES else None
    return f"{name}{found}" if found else f"{name} cannot be read: {_first_line(error)}"


def not_decoded(path: Path, how: Reading) -> int | None:
    """The first line, from 1 on, that is not of the encoding."""
    decoder = codecs.getincrementaldecoder(encoding_of(path, how.encoding))()
    line = 1
    with open(path, "rb") as file:
        while True:
            block = file.read(1 << 16)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeError as error:
                before = getattr(error, "start", 0)
                return line + block[:before].count(b"\n")
            if not block:
                return None


def rows_of(path: Path, how: Reading) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each record of a CSV or TSV file, empty lines passed over.

    Raises:
        csv.Error: A quote is opened and never closed.
    """
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if how.quoted else csv.QUOTE_NONE
    with open(path, encoding=encoding_of(path, how.encoding), newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter_of(path, how), quoting=quoting, strict=how.quoted)
        before = csv.field_size_limit(1 << 30)
        try:
            number = 1
            for row in reader:
                if row:
                    yield number, row
                number = reader.line_num + 1
        finally:
            csv.field_size_limit(before)


def _wrong_line(path: Path, how: Reading) -> str | None:
    width, delimiter, number = 0, delimiter_of(path, how), 1
    try:
        for number, row in rows_of(path, how):
            width = width or len(row)
            if len(row) != width:
                put = f"put text that holds {delimiter!r} in double quotes" if len(row) > width else "fill the row"
                return f", line {number}, has {len(row)} columns, not {width} as the first; {put}"
    except csv.Error as error:
        if "unexpected end" in str(error):
            return (
                f", line {_last_quote(path, how)}, opens a quote that is never closed; close it, or set quoted: false"
            )
        return (
            f", after line {number}, has text behind a closing quote; double quotes inside a cell, or set quoted: false"
        )
    return None


def _last_quote(path: Path, how: Reading) -> int:
    """The last line that opens a quote which it does not close."""
    opened, last = 0, 1
    with open(path, encoding=encoding_of(path, how.encoding), newline="") as lines:
        for number, line in enumerate(lines, 1):
            if line.count('"') % 2:
                opened, last = 1 - opened, number
    return last


def _wrong_object(path: Path, how: Reading) -> str | None:
    types: dict[str, tuple[str, int]] = {}
    with open(path, encoding=encoding_of(path, how.encoding)) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                if number == 1 and line.strip() in ("[", "{"):
                    return " is one JSON text over many lines; write one object a line"
                return f", line {number}, is not JSON ({getattr(error, 'msg', error)}): {_short(line)}; mend the line"
            if isinstance(value, list) and number == 1:
                return " is a JSON list; write one object a line"
            if not isinstance(value, dict):
                return f', line {number}, is {_short(line)}, not an object; write {{"text": ..., "label": ...}}'
            for key, inner in value.items():
                named = _JSON_TYPES.get(type(inner))
                before, first = types.setdefault(key, (named, number)) if named else (named, number)
                if named != before:
                    return f", line {number}, has {named} in {key!r}, but line {first} has {before}; write all alike"
    return None


def _short(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 40 else line[:40] + "…")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
