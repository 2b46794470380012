"""How a file is to be read: encoding, delimiter, quotes, header, names of the columns."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from charset_normalizer import from_bytes

from fastmtl.data.sources.faults import DELIMITERS, OTHER_FORMATS, fault_of, not_decoded, rows_of
from fastmtl.data.sources.formats import TABLES, Reading, delimiter_of, encoding_of
from fastmtl.errors import UserError

Doubt = tuple[str, str]
"""What is uncertain, and the option of the YAML that answers it."""
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "koi8_r", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp1253",
              "cp1254", "cp1255", "cp1256"]  # fmt: skip
_LATIN = ("cp1252", "cp1250", "cp1254")
_BYTES, _RECORDS = 1 << 18, 200
"""What is looked at."""


def sniff(path: Path) -> tuple[Reading, list[Doubt]]:
    """Find out how a text file is read; other files need nothing.

    Raises:
        UserError: It is no text file, empty, or some line is not as the others are.
    """
    with open(path, "rb") as file:
        start = file.read(_BYTES)
    if path.suffix.lower() in (".parquet", ".arrow", ".feather"):
        return Reading(), []
    if not start.strip() or any(start.startswith(mark) for mark in OTHER_FORMATS):
        raise UserError(
            fault_of(path, Reading(), ValueError()) if start[:8].strip() else f"{path.name} is empty; fill it"
        )
    reading, doubts = _encoded(path, start)
    if path.suffix.lower() not in TABLES:
        return reading, doubts
    try:
        text = start.decode(encoding_of(path, reading.encoding), errors="ignore")
    except UnicodeError as error:
        raise UserError(fault_of(path, reading, error)) from None
    reading = _delimited(path, text, reading)
    reading = _quoted(path, reading, doubts)
    return _headed(path, reading, doubts)


def _encoded(path: Path, start: bytes) -> tuple[Reading, list[Doubt]]:
    encoding = encoding_of(path)
    if encoding != "utf-8" or (b"\0" not in start and not_decoded(path, Reading()) is None):
        return Reading(), []
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if max(even, odd) < len(start) / 5:
            raise UserError(f"{path.name} has zero bytes and is no text; save it as CSV (UTF-8)")
        found = "utf-16-le" if odd > even else "utf-16-be"
    else:
        best = from_bytes(start, cp_isolation=_ENCODINGS).best()
        # Short texts look alike in all encodings of Latin letters: the usual one is asked about.
        found = best.encoding if best and best.encoding not in _LATIN else "cp1252"
    # A line beyond the ones that were looked at may not be of it.
    reading = Reading(encoding=found)
    if not_decoded(path, reading) is not None:
        reading = Reading(encoding="latin-1")
    example = next((word for word in start.decode(reading.encoding, "replace").split() if not word.isascii()), "")
    read = f"{path.name} is not UTF-8 and is read as {reading.encoding} ({example[:30]!r}); are the letters right?"
    return reading, [(read, f"encoding: {reading.encoding}")]


def _delimited(path: Path, text: str, reading: Reading) -> Reading:
    """With the delimiter that gives most of the first records the same number of columns, two or more."""
    usual = delimiter_of(path, reading)
    if len(text.encode()) >= _BYTES - 4:
        text = text[: text.rfind("\n")]
    scores: dict[str, tuple[float, int]] = {}
    for mark in dict.fromkeys([usual, *DELIMITERS]):
        try:
            widths = Counter(
                len(row) for row in islice(csv.reader(io.StringIO(text, ""), delimiter=mark), _RECORDS) if row
            )
        except csv.Error:
            continue
        width, count = max(widths.items(), key=lambda pair: (pair[1], pair[0]), default=(0, 0))
        if width > 1:
            scores[mark] = (count / widths.total(), width)
    if usual in scores and scores[usual][0] >= 0.9:
        return reading
    best = max(scores, key=lambda mark: scores[mark], default=usual)
    return reading if best == usual else replace(reading, delimiter=best)


def _quoted(path: Path, reading: Reading, doubts: list[Doubt]) -> Reading:
    """As quotes allow; where lines are read as wholes only without them, they are characters of the text."""
    if (fault := _uneven(path, reading)) is None:
        return reading
    plain = replace(reading, quoted=False)
    if _uneven(path, plain) is None:
        doubts.append((f"{path.name} has double quotes that are not closed; they are read as text", "quoted: false"))
        return plain
    raise UserError(fault)


def _uneven(path: Path, reading: Reading) -> str | None:
    """The fault of the first line that has not as many columns as the first."""
    width = 0
    try:
        for _, row in rows_of(path, reading):
            width = width or len(row)
            if len(row) != width:
                return fault_of(path, reading, ValueError())
    except csv.Error as error:
        return fault_of(path, reading, error)
    return None


def _headed(path: Path, reading: Reading, doubts: list[Doubt]) -> tuple[Reading, list[Doubt]]:
    """With names of all columns where the header has none, some blank, or some twice."""
    records: Iterator[tuple[int, list[str]]] = rows_of(path, reading)
    (_, first), *rest = islice(records, _RECORDS)
    if not rest:
        raise UserError(f"{path.name} has one line; give a header and rows")
    if _is_data(first, [row for _, row in rest]):
        names = [f"column_{place}" for place in range(1, len(first) + 1)]
        doubts.append(
            (f"{path.name} seems to have no header ({first[0][:30]!r}, …); the columns are numbered", "header: false")
        )
        return replace(reading, header=False, columns=tuple(names)), doubts
    names = _unique([name.strip() for name in first])
    if names == first:
        return reading, doubts
    changed = [f"{old!r} is {new!r}" for old, new in zip(first, names) if old != new]
    doubts.append((f"{path.name} has blank, padded or repeated headers: {', '.join(changed[:4])}", f"columns: {names}"))
    return replace(reading, columns=tuple(names)), doubts


def _unique(names: list[str]) -> list[str]:
    unique: list[str] = []
    for place, name in enumerate(names, 1):
        name = name or f"column_{place}"
        number, candidate = 2, name
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return unique


def _is_data(first: Sequence[str], rest: list[list[str]]) -> bool:
    """Whether the first row is like the others: a number where they have numbers, or a value that they have too."""
    if any(len(cell.split()) > 8 for cell in first):
        return True
    columns = list(zip(*rest))
    if any(_number(cell) and all(map(_number, column)) for cell, column in zip(first, columns)):
        return True
    few = ((cell, column) for cell, column in zip(first, columns) if 4 <= 2 * len({*column}) <= len(column))
    return any(cell.strip() and cell in column for cell, column in few)


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
