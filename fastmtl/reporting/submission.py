"""The zip that the GLUE server scores: real predictions alone.

`python -m fastmtl.reporting.submission --tasks rte,mrpc data=glue encoder=minilm budget=4000` trains those cells, or
finds them, reads their test rows and writes the files. Each file has a header and a line a row of the official test
file: its place from 0, a tab, the prediction. What the server wants as prediction: https://gluebenchmark.com/faq.
"""

from __future__ import annotations

import argparse
import math
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet

from fastmtl.config import compose
from fastmtl.data.pool import TokenRows
from fastmtl.errors import UserError
from fastmtl.tasks import GLUE, TaskSpec

if TYPE_CHECKING:  # torch takes seconds to import; --help does without it
    from fastmtl.pipeline import Experiment


@dataclass(frozen=True)
class ServerFile:
    """`name`.tsv: `rows` predictions of the model of `task`, classes as words or codes.

    `elsewhere` is where the rows are, if not in the test split of `task`.
    """

    name: str
    task: str
    rows: int
    words: bool = False
    elsewhere: TaskSpec | None = None

    def text(self, predictions: Path) -> str:
        """The file's content from a `test.parquet`."""
        spec, table = GLUE[self.task], pyarrow.parquet.read_table(predictions)
        values = table["prediction"].to_pylist()
        if spec.kind == "regression":
            if not all(map(math.isfinite, values)):
                raise UserError(f"{self.name}: predictions of {self.task!r} are no numbers; train it at a lower rate")
            values = [f"{min(max(value, 0.0), 5.0):.3f}" for value in values]
        elif not self.words:
            values = [spec.labels.index(value) for value in values]
        return "index\tprediction\n" + "".join(f"{i}\t{value}\n" for i, value in zip(table["row"].to_pylist(), values))


MISMATCHED = replace(GLUE["mnli"], splits={"test": "test_mismatched"})
DIAGNOSTIC = replace(GLUE["mnli"], name="ax", splits={"test": "test"})

# Numbers of rows: of the test splits of the Hub data set `nyu-mll/glue`.
FILES = (
    ServerFile("CoLA", "cola", 1063),
    ServerFile("SST-2", "sst2", 1821),
    ServerFile("MRPC", "mrpc", 1725),
    ServerFile("STS-B", "stsb", 1379),
    ServerFile("QQP", "qqp", 390965),
    ServerFile("MNLI-m", "mnli", 9796, words=True),
    ServerFile("MNLI-mm", "mnli", 9847, words=True, elsewhere=MISMATCHED),
    ServerFile("QNLI", "qnli", 5463, words=True),
    ServerFile("RTE", "rte", 3000, words=True),
    ServerFile("WNLI", "wnli", 146),
    ServerFile("AX", "mnli", 1104, words=True, elsewhere=DIAGNOSTIC),
)


def write_submission(
    overrides: Sequence[str], out: Path, tasks: Sequence[str] = (), allow_missing: bool = False
) -> dict[str, str]:
    """Train or find the cells `OVERRIDES primary=TASK`, write the zip, and return file -> why it is missing.

    `tasks` are all GLUE tasks of the data if none are named. What is missing is said before anything is trained, as a
    `UserError` unless it is allowed; it is never filled.
    """
    tasks = tasks or [task.name for task in compose(*overrides).source.tasks if task.name in GLUE]
    cells = {task: compose(*overrides, f"primary={task}") for task in tasks}
    for cell in cells.values():
        cell.pool  # noqa: B018  what is wrong with the data is said as it is, and not as a missing file
    found: list[tuple[ServerFile, TokenRows]] = []
    missing: dict[str, str] = {}
    for file in FILES:
        try:
            found.append((file, _official_rows(file, cells)))
        except UserError as error:
            missing[file.name] = str(error)
    if missing and not (found and allow_missing):
        told = "; ".join(f"{name}: {why}" for name, why in missing.items())
        hint = "; --allow-missing leaves them out" if found else ""
        raise UserError(f"{len(missing)} of {len(FILES)} files cannot be made ({told}){hint}")
    texts = {}
    for file, rows in found:
        print(f"{file.name}.tsv: {len(rows)} rows, by the model of {file.task}", flush=True)
        texts[file.name] = file.text(cells[file.task].predicted(rows).path / "test.parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{name}.tsv", text)
    return missing


def _official_rows(file: ServerFile, cells: Mapping[str, Experiment]) -> TokenRows:
    """All rows that the server has; a `UserError` says why they cannot be had."""
    if file.task not in cells:
        raise UserError(f"{file.task} was not asked for")
    cell, spec = cells[file.task], GLUE[file.task]
    own = cell.pool.task(file.task)
    if (own.kind, own.labels) != (spec.kind, spec.labels):
        raise UserError(f"labels {list(own.labels)} are not GLUE's")
    rows = cell.test_rows_of(file.elsewhere) if file.elsewhere else cell.pool.split(file.task, "test")
    if len(rows) != file.rows:
        raise UserError(f"{len(rows)} test rows, the official file has {file.rows}")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; errors that a user can mend are one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m fastmtl.reporting.submission",
        description="Write the zip that the GLUE server scores, from cells that are trained or found.",
    )
    parser.add_argument("--tasks", default="", help="as rte,mrpc; without it all GLUE tasks of the data")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="the zip (%(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out files that cannot be made")
    parser.add_argument("overrides", nargs="*", help="of the cells, as for fastmtl: data=glue seed=0 budget=500")
    told = parser.parse_intermixed_args(arguments)
    tasks = told.tasks.split(",") if told.tasks else ()
    try:
        missing = write_submission(told.overrides, told.out, tasks, told.allow_missing)
    except UserError as error:
        print(f"fastmtl: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {told.out}")
    if missing:
        print(f"not in it, and the server asks for all {len(FILES)} files:")
        print("\n".join(f"  {name}.tsv: {why}" for name, why in missing.items()))


if __name__ == "__main__":
    main()
