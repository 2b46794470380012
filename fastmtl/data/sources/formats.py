"""Rows of a file by its ending: CSV, TSV, JSONL, Parquet, Arrow and CoNLL, as Arrow record batches."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from pydantic import Field

from fastmtl.data.sources import BATCH_ROWS
from fastmtl.errors import UserError
from fastmtl.options import Share, options

TABLES, LINES, WORDS = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".conll",)
ENDINGS = (*TABLES, *LINES, ".parquet", ".arrow", ".feather", *WORDS)
UNREADABLE = (pa.ArrowException, OSError, UnicodeError)
"""What reading raises where a file is not what its ending says."""
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@options
class Reading:
    """How a task's files are read, where that differs from what their ending says.

    Args:
        delimiter: Between the columns of a CSV or TSV file; None is a comma, or a tab for `.tsv`.
        quoted: Whether a cell in double quotes may hold the delimiter and line ends; false takes quotes as characters.
        encoding: Python's name of it; a byte-order mark decides before it.
        header: Whether the first row of a CSV or TSV file names the columns.
        columns: Names of all columns in order, in place of the file's own.
        rename_labels: Label in the file -> the name that it is to have.
        validation_share: Of the rows of the training file, for a task without a validation file: they are its
            validation split and no longer trained on. A row's text decides, so that equal texts are on one side and
            further rows move none.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[str, ...] | None = None
    rename_labels: dict[str, str] = Field(default_factory=dict)
    validation_share: Share | None = None

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise UserError(f"encoding={self.encoding!r} is unknown; use utf-8, utf-16, latin-1 or cp1252") from None


def read(path: Path, columns: Sequence[str], how: Reading) -> Iterator[pa.RecordBatch]:
    """Record batches of a file; CSV and TSV cells come as text, so that '001' and 'NA' stay as typed.

    Args:
        path: Its ending says what it is.
        columns: Those that are needed; a dot leads into a nested field of JSONL, Parquet and Arrow.
        how: How text files are read.

    Raises:
        UserError: The ending is not read, or a line of a CoNLL file has another number of columns.
        UNREADABLE: The file is not what its ending says.
    """
    ending = path.suffix.lower()
    if ending in TABLES:
        yield from _read_table(path, how)
    elif ending in LINES:
        yield from _nested(_read_lines(path, columns, how), columns)
    elif ending == ".parquet":
        yield from _nested(pyarrow.parquet.ParquetFile(path).iter_batches(BATCH_ROWS), columns)
    elif ending in (".arrow", ".feather"):
        yield from _nested(_read_arrow(path), columns)
    elif ending in WORDS:
        yield from _read_conll(path, columns, how)
    else:
        raise UserError(f"{path}: ending {ending!r} is not read; use {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def encoding_of(path: Path, given: str = "utf-8") -> str:
    """Of a text file: that of its byte-order mark, else the one given."""
    with open(path, "rb") as file:
        start = file.read(3)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    return {"utf-8": "utf-8-sig", "utf-16-le": "utf-16", "utf-16-be": "utf-16"}[marked] if marked else given


def delimiter_of(path: Path, how: Reading) -> str:
    """Between the columns of a CSV or TSV file."""
    return how.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")


def _read_table(path: Path, how: Reading) -> Iterator[pa.RecordBatch]:
    parse = pyarrow.csv.ParseOptions(
        delimiter=delimiter_of(path, how), quote_char='"' if how.quoted else False, newlines_in_values=how.quoted
    )
    names = list(how.columns) if how.columns else None
    reading = pyarrow.csv.ReadOptions(
        encoding=encoding_of(path, how.encoding),
        column_names=names,
        skip_rows_after_names=int(bool(names) and how.header),
        autogenerate_column_names=not (how.header or names),
    )
    names = pyarrow.csv.open_csv(path, reading, parse).schema.names
    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    yield from pyarrow.csv.open_csv(path, reading, parse, as_text)


def _opened(path: Path, how: Reading) -> pa.NativeFile:
    encoding = encoding_of(path, how.encoding)
    stream = pa.OSFile(str(path))
    return stream if encoding == "utf-8" else pa.transcoding_input_stream(stream, encoding, "utf-8")


def _read_lines(path: Path, columns: Sequence[str], how: Reading) -> Iterator[pa.RecordBatch]:
    # Types of the first block hold for the columns in use; what other columns turn into does not matter.
    roots = {name.partition(".")[0] for name in columns} | {*columns}
    schema = pa.schema([field for field in pyarrow.json.open_json(_opened(path, how)).schema if field.name in roots])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    yield from pyarrow.json.open_json(_opened(path, how), parse_options=parse)


def _read_arrow(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file:
        try:
            opened = pa.ipc.open_file(file)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        except pa.ArrowInvalid:  # a stream, as `datasets` writes it
            file.seek(0)
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            batch.validate(full=True)  # offsets of a damaged file would lead outside of it
            yield batch


def _nested(batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches with a column more for each nested field that is asked for."""
    for batch in batches:
        names = batch.schema.names
        for name in (name for name in columns if name not in names and name.partition(".")[0] in names):
            root, *fields = name.split(".")
            try:
                batch = batch.append_column(name, reduce(pc.struct_field, fields, batch.column(root)))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                continue  # no such field: the reader of the columns says so
        yield batch


def _read_conll(path: Path, columns: Sequence[str], how: Reading) -> Iterator[pa.RecordBatch]:
    """Rows of words and of what stands beside them, named by their numbers: "0" is the first column, "-1" the last.

    Where the last is asked for as "0" too, there is no "-1": words without tags.
    """
    with open(path, encoding=encoding_of(path, how.encoding)) as lines:
        rows = _columns_of(sentences(lines), path)
        while part := list(islice(rows, BATCH_ROWS)):
            width = len(part[0])
            places = {str(place): place for place in range(width)}
            for name in columns:
                place = width + int(name) if re.fullmatch(r"-\d+", name) else -1
                if str(place) not in columns and place in range(width):
                    places[name] = place
            yield pa.RecordBatch.from_pydict({name: [row[place] for row in part] for name, place in places.items()})


def _columns_of(sentences: Iterator[list[tuple[int, list[str]]]], path: Path) -> Iterator[list[tuple[str, ...]]]:
    width = 0
    for words in sentences:
        width = width or len(words[0][1])
        for number, cells in words:
            if len(cells) != width:
                raise UserError(f"{path}: line {number} has {len(cells)} columns, not {width} as the first; mend it")
        yield list(zip(*(cells for _, cells in words)))


def sentences(lines: Iterable[str]) -> Iterator[list[tuple[int, list[str]]]]:
    """The lines of each sentence of a CoNLL file: number from 1, and columns, which are cut at tabs or blanks.

    Sentences end at empty lines. A line with # is a comment before a sentence's first word alone, for # is a word too.
    """
    words: list[tuple[int, list[str]]] = []
    for number, line in enumerate(chain(lines, [""]), 1):
        if line.startswith("-DOCSTART-") or (line.startswith("#") and not words):
            continue
        if line.strip():
            cells = line.strip("\r\n").split("\t") if "\t" in line else re.split(" +", line.strip(" \r\n"))
            words.append((number, cells))
        elif words:
            yield words
            words = []


def column_names(path: Path, how: Reading) -> list[str]:
    """All columns of a file, nested fields by their paths; of a CoNLL file the first and the last."""
    ending = path.suffix.lower()
    if ending in WORDS:
        return ["0", "-1"]
    if ending in LINES:
        schema = pyarrow.json.open_json(_opened(path, how)).schema
    elif ending == ".parquet":
        schema = pyarrow.parquet.ParquetFile(path).schema_arrow
    else:
        schema = next(read(path, [], how)).schema
    return [name for field in schema for name in _leaves(field)]


def _leaves(field: pa.Field) -> list[str]:
    if not pa.types.is_struct(field.type):
        return [field.name]
    return [f"{field.name}.{name}" for inner in field.type for name in _leaves(inner)]


def class_names(path: Path) -> dict[str, list[str]]:
    """Column -> names of its class codes, as `datasets` notes them in Parquet and Arrow files."""
    if path.suffix.lower() == ".parquet":
        metadata = pyarrow.parquet.ParquetFile(path).schema_arrow.metadata
    elif path.suffix.lower() in (".arrow", ".feather"):
        metadata = next(read(path, [], Reading())).schema.metadata
    else:
        return {}
    noted = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {})
    named = {name: feature.get("feature", feature) for name, feature in features.items() if isinstance(feature, dict)}
    return {
        name: feature["names"] for name, feature in named.items() if isinstance(feature, dict) and "names" in feature
    }
