"""The zip that the GLUE server scores, from cells that are trained or found: real predictions alone.

Each file has a header and one line per row of the official test file: its position from 0, a tab, the prediction. What
the server wants as prediction: https://gluebenchmark.com/faq.
"""

from __future__ import annotations

import argparse
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet

from fastmtl.cli.compose import compose
from fastmtl.cli.messages import in_one_line
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.pipelines.experiment import Experiment
from fastmtl.stages.pool import open_pool
from fastmtl.tasks import GLUE, TaskSpec

log = logging.getLogger(__name__)


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
                raise UserError(f"{self.name}: predictions of {self.task!r} are not numbers; train it at a lower rate")
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


def write_submission(cells: Mapping[str, Experiment], out: Path, allow_missing: bool = False) -> dict[str, str]:
    """Train or find the cells, one per GLUE task, write the zip, and return file -> why it is missing.

    What is missing is reported before anything is trained, as a `UserError` unless it is allowed; it is never filled.
    """
    for cell in cells.values():
        cell.pool  # noqa: B018  what is wrong with the data is reported as it is, and not as a missing file
    found: list[tuple[ServerFile, RowSet]] = []
    missing: dict[str, str] = {}
    for file in FILES:
        try:
            found.append((file, _official_rows(file, cells)))
        except UserError as error:
            missing[file.name] = str(error)
    if missing and not (found and allow_missing):
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        hint = "; --allow-missing leaves them out" if found else ""
        raise UserError(f"{len(missing)} of {len(FILES)} files cannot be made ({reasons}){hint}")
    texts = {}
    for file, rows in found:
        log.info("%s.tsv: %d rows, by the model of %s", file.name, rows.count, file.task)
        texts[file.name] = file.text(cells[file.task].predicted(rows).path / "test.parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{name}.tsv", text)
    return missing


def _official_rows(file: ServerFile, cells: Mapping[str, Experiment]) -> RowSet:
    """All rows that the server has; a `UserError` gives the reason where they are not to be had."""
    if file.task not in cells:
        raise UserError(f"{file.task} was not asked for")
    cell, spec = cells[file.task], GLUE[file.task]
    if (cell.task.kind, cell.task.labels) != (spec.kind, spec.labels):
        raise UserError(f"labels {list(cell.task.labels)} are not GLUE's")
    task = replace(file.elsewhere, source=cell.task.source) if file.elsewhere else cell.task
    if "test" not in task.splits:
        raise UserError(f"task {task.name!r} has no test split")
    rows = open_pool(cell.context, [task], cell.encoder).split(task.name, "test")
    if len(rows) != file.rows:
        raise UserError(f"{len(rows)} test rows, the official file has {file.rows}")
    return RowSet.of([task], {task.name: np.arange(len(rows))}, "test")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; errors that a user can mend are one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="submission.py",
        description="Write the zip that the GLUE server scores, from cells that are trained or found.",
        epilog="python submission.py --tasks rte,mrpc data=glue encoder=minilm budget=4000",
    )
    parser.add_argument("--tasks", default="", help="as rte,mrpc; without it all GLUE tasks of the data")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="the zip (%(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out files that cannot be made")
    parser.add_argument("overrides", nargs="*", help="of the cells, as for fastmtl: data=glue seed=0 budget=500")
    given = parser.parse_intermixed_args(arguments)
    with in_one_line("fastmtl"):
        tasks = given.tasks.split(",") if given.tasks else []
        tasks = tasks or [task.name for task in compose(*given.overrides).tasks if task.name in GLUE]
        cells = {task: compose(*given.overrides, f"primary={task}") for task in tasks}
        missing = write_submission(cells, given.out, given.allow_missing)
        print(f"written to {given.out}")
        if missing:
            print(f"not in it, and the server asks for all {len(FILES)} files:")
            print("\n".join(f"  {name}.tsv: {why}" for name, why in missing.items()))


if __name__ == "__main__":
    main()
