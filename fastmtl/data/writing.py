"""Tables as CSV, JSON lines or Parquet, batch by batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = (".csv", ".jsonl", ".parquet")


@contextmanager
def table_file(path: Path | None) -> Iterator[Callable[[DataFrame], None]]:
    """A function that appends a table to a file, of the format of its ending, which appears when it is whole.

    Parquet is held in memory until then, for the type of each column. Without a path it is CSV on standard output.

    Raises:
        UserError: It cannot be written.
    """
    if path is None:
        yield _csv(sys.stdout)
        return
    draft, ending, held = path.with_name(f".{path.name}.{os.getpid()}"), path.suffix.lower(), list["DataFrame"]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "w", encoding="utf-8", newline="") as file:
            yield held.append if ending == ".parquet" else _csv(file) if ending == ".csv" else _json(file)
        if held:
            _write_parquet(held, draft)
        os.replace(draft, path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written ({error.strerror}); name a file of yours") from error
    finally:
        draft.unlink(missing_ok=True)


def _csv(file: Any) -> Callable[[DataFrame], None]:
    columns: list[str] = []

    def write(table: DataFrame) -> None:
        header = not columns
        columns.extend(table.columns if header else [])
        table = table.reindex(columns=columns)
        for name in table.select_dtypes(exclude="number"):
            table[name] = table[name].map(cell)
        names = [cell(name) for name in columns]
        table.to_csv(file, header=names if header else False, index=False, lineterminator="\n")

    return write


def _json(file: Any) -> Callable[[DataFrame], None]:
    return lambda table: table.to_json(file, orient="records", lines=True, force_ascii=False, date_format="iso")


def _write_parquet(tables: list[DataFrame], path: Path) -> None:
    import pandas
    import pyarrow as pa

    table = pandas.concat(tables, ignore_index=True)
    for name in table:
        try:
            pa.array(table[name], from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # several types
            table[name] = table[name].map(str, na_action="ignore")
    table.to_parquet(path, index=False)


def cell(value: Any) -> Any:
    """A value as a cell of CSV: lists joined by blanks, and a text that a spreadsheet would run begins with a quote.

    Source: https://owasp.org/www-community/attacks/CSV_Injection.
    """
    if isinstance(value, list):
        value = " ".join("" if item is None else str(item) for item in value)
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value  # a number
