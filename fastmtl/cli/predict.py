"""`fastmtl predict MODEL FILE`: the rows of a file with the labels that a trained model gives them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.cli.verbs import Arguments, count
from fastmtl.errors import UserError
from fastmtl.progress import progress

if TYPE_CHECKING:
    from pandas import DataFrame

    from fastmtl.data.sources.lenient import Row
    from fastmtl.training.trained import Model

SHOWN_FAULTS = 20


def main(arguments: Sequence[str]) -> int:
    """`fastmtl predict`; rows without a prediction are no failure."""
    parser = Arguments(
        "predict", "fastmtl predict outputs/runs/2026-01-31/12-00-00-000000 new.csv -o answers.csv",
        "Added are `prediction`, and `p_LABEL` for the probability of each label; of tagging `prediction` and "
        "`probability` for each word. Rows stay in order; one that cannot be read is named and has no prediction.",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="folder of a run, its result.json, or an exported folder")
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="CSV, TSV, JSONL, Parquet, Arrow or CoNLL, by its ending"
    )
    parser.add_argument("-o", "--out", type=Path, help="CSV, JSONL or Parquet, by its ending; default: CSV to stdout")
    parser.add_argument("--text", metavar="COLUMN", help="the text, or the words; default: as in training")
    parser.add_argument("--text-pair", metavar="COLUMN", help="the second text of a pair; default: as in training")
    parser.add_argument("--batch-size", type=count, default=1024, metavar="ROWS", help="read together (%(default)s)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16", "int8"), default="fp32",
        help="of the arithmetic; auto takes bf16 where it is fast (%(default)s)",
    )  # fmt: skip
    _predict(parser.parse_args(arguments))
    return 0


def _predict(given: argparse.Namespace) -> None:
    from fastmtl.data.sources.lenient import read_rows
    from fastmtl.data.writing import ENDINGS, table_file

    if given.out is not None and given.out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out={str(given.out)!r} ends in none of {', '.join(ENDINGS)}; name the format by its ending")
    rows = read_rows(given.file)
    first = list(islice(rows, given.batch_size))  # before torch is imported, where the file is wrong
    if not first:
        raise UserError(f"{given.file} has no rows; there is nothing to predict")

    from fastmtl.training.trained import load

    model = load(given.model)
    texts = _text_columns(model, first, given)
    rows, done, faults, named = chain(first, rows), 0, 0, list[str]()
    with table_file(given.out) as write, progress("predict", "row") as bar:
        while part := list(islice(rows, given.batch_size)):
            table, wrong = _answered(model, part, texts, given)
            write(table)
            named += wrong[: SHOWN_FAULTS - len(named)]
            done, faults = done + len(part), faults + len(wrong)
            bar.update(len(part))
    for fault in named:
        print(UserError(f"{given.file}: {fault}; no prediction"), file=sys.stderr)  # without control characters
    more = f", of which {SHOWN_FAULTS} are named above" if faults > len(named) else ""
    where = f"; written to {given.out}" if given.out else ""
    print(f"{done:,} rows, {faults:,} without a prediction{more}{where}", file=sys.stderr)


def _text_columns(model: Model, rows: Sequence[Row], given: argparse.Namespace) -> list[str]:
    """The columns that the model reads: those that it was trained on unless they are named."""
    names, columns = list(model.task.text), list(dict.fromkeys(chain(*(row.values for row in rows))))
    for place, (option, name) in enumerate((("--text", given.text), ("--text-pair", given.text_pair))):
        if place >= len(names) and name is not None:
            raise UserError(f"{option}={name!r}: task {model.task.name!r} reads one text; leave it out")
        if place < len(names):
            names[place] = name or names[place]
            if names[place] not in columns and all(row.get(names[place]) is None for row in rows):
                known = ", ".join(columns)
                raise UserError(f"{given.file}: no column {names[place]!r}; name one of {known} with {option} COLUMN")
    for name in model.predict([]):
        if name in columns:
            raise UserError(f"{given.file} has a column {name!r}, which is to be added; rename it")
    return names


def _answered(
    model: Model, rows: Sequence[Row], columns: Sequence[str], given: argparse.Namespace
) -> tuple[DataFrame, list[str]]:
    """The rows and what is added, nothing where one cannot be read, and why those cannot."""
    import pandas

    texts, places, wrong = [], [], []
    for place, row in enumerate(rows):
        text = _text(model, [row.get(name) for name in columns])
        reason, named = model.problem(text), " or ".join(map(repr, columns))
        if row.fault or reason:
            wrong.append(f"line {row.line}: {row.fault or f'{named} {reason}'}")
        else:
            texts.append(text)
            places.append(place)
    answers = model.predict(texts, batch_size=given.batch_size, precision=given.precision).set_axis(places)
    own = pandas.DataFrame([row.values for row in rows], dtype=object)
    return pandas.concat([own, answers.reindex(range(len(rows)))], axis=1), wrong


def _text(model: Model, values: list[Any]) -> Any:
    """A row as `Model.predict` takes it; numbers are text too, and words are cut at blanks where they are no list."""
    if model.task.of_kind.reads == "words":
        return list(map(str, values[0])) if isinstance(values[0], list) else str(values[0] or "").split()
    plain = tuple("" if value is None else str(value) for value in values)
    return plain if len(plain) == 2 else plain[0]
