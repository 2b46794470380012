"""The zip as the server reads it, and what is refused."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.cli.compose import compose
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.pipelines.experiment import Experiment
from fastmtl.stages.pool import open_pool
from fastmtl.tasks import GLUE, TaskSpec
from tests.helpers.scripts import script

submission = script("glue_submission/submission.py")
main, write_submission, FILES = submission.main, submission.write_submission, submission.FILES

pytestmark = pytest.mark.usefixtures("own_environment")
BY_NAME = {file.name: file for file in FILES}
ROWS = 6
LABELS = {"rte": [0, 1], "stsb": [0.5, 4.0], "mnli": [0, 1, 2]}


def predictions(folder: Path, values: list[str] | list[float]) -> Path:
    path = folder / "test.parquet"
    pa.parquet.write_table(pa.table({"row": list(range(len(values))), "prediction": values}), path)
    return path


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [
        ("RTE", ["not_entailment", "entailment"], ["not_entailment", "entailment"]),
        ("QNLI", ["entailment", "not_entailment"], ["entailment", "not_entailment"]),
        ("MNLI-m", ["neutral", "contradiction", "entailment"], ["neutral", "contradiction", "entailment"]),
        ("MNLI-mm", ["neutral", "contradiction"], ["neutral", "contradiction"]),
        ("AX", ["contradiction", "entailment"], ["contradiction", "entailment"]),
        ("CoLA", ["acceptable", "unacceptable"], ["1", "0"]),
        ("SST-2", ["negative", "positive"], ["0", "1"]),
        ("MRPC", ["equivalent", "not_equivalent"], ["1", "0"]),
        ("QQP", ["duplicate", "not_duplicate"], ["1", "0"]),
        ("WNLI", ["entailment", "not_entailment"], ["1", "0"]),
        ("STS-B", [-0.25, 5.0004, 2.34567, 0.0], ["0.000", "5.000", "2.346", "0.000"]),
    ],
)
def test_a_file_says_what_the_server_reads(tmp_path: Path, name: str, values: list[str], shown: list[str]) -> None:
    lines = "".join(f"{i}\t{value}\n" for i, value in enumerate(shown))
    assert BY_NAME[name].text(predictions(tmp_path, values)) == f"index\tprediction\n{lines}"


def test_predictions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"STS-B.*'stsb'"):
        BY_NAME["STS-B"].text(predictions(tmp_path, [1.0, float("nan")]))


def test_every_glue_task_has_its_file() -> None:
    assert {file.task for file in FILES} == set(GLUE)
    assert len(BY_NAME) == 11


@pytest.mark.data("glue")
def test_every_file_has_as_many_rows_as_the_official_test_split(shared_data: Path) -> None:
    for file in FILES:
        path = shared_data / "glue" / file.task / f"{(file.elsewhere or GLUE[file.task]).splits['test']}.parquet"
        if file.name not in ("QQP", "AX"):  # are not there
            assert pyarrow.parquet.read_metadata(path).num_rows == file.rows


# --- whole zips ----------------------------------------------------------------------------------------------------


def write_split(root: Path, task: str, split: str, rows: int, labels: Sequence[float] = (-1,)) -> None:
    """Rows that tell a shuffled or a wrong file from the right one: their texts differ."""
    (root / task).mkdir(parents=True, exist_ok=True)
    columns = GLUE["mnli" if task == "ax" else task].text
    texts = {name: [f"{split} {i} {name}" for i in range(rows)] for name in columns}
    table = pa.table({**texts, "label": list(islice(cycle(labels), rows))})
    pa.parquet.write_table(table, root / task / f"{split}.parquet")


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three small tasks with hidden test labels and an official number of `ROWS` test rows."""
    monkeypatch.setattr(submission, "FILES", tuple(replace(file, rows=ROWS) for file in FILES))
    for task, labels in LABELS.items():
        for split in ("train", "validation"):
            write_split(tmp_path, task, GLUE[task].splits[split], 12, labels)
    for task, split in (
        ("rte", "test"), ("stsb", "test"), ("mnli", "test_matched"), ("mnli", "test_mismatched"), ("ax", "test"),
    ):  # fmt: skip
        write_split(tmp_path, task, split, ROWS)
    return [
        "data=glue_local", f"data.root={tmp_path}", "data.tasks=[mnli,rte,stsb]", "encoder=tiny", "selection=none",
        "finetune.fit.epochs=1", f"paths.output={tmp_path / 'outputs'}",
    ]  # fmt: skip


def experiments(cells: list[str], *tasks: str, seed: int = 0) -> dict[str, Experiment]:
    """The cell of each task."""
    return {task: compose(*cells, f"seed={seed}", f"primary={task}") for task in tasks}


def official_rows(exp: Experiment, elsewhere: TaskSpec | None) -> RowSet:
    """All test rows of the primary, or of the data set that stands elsewhere."""
    task = replace(elsewhere, source=exp.task.source) if elsewhere else exp.task
    count = len(open_pool(exp.context, [task], exp.encoder).split(task.name, "test"))
    return RowSet.of([task], {task.name: np.arange(count)}, "test")


def artifacts(folder: Path, stage: str) -> set[Path]:
    return set((folder / "outputs/artifacts" / stage).glob("*/manifest.json"))


def test_the_zip_holds_real_predictions_of_all_that_was_asked_for(
    tmp_path: Path, cells: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "submission.zip"
    main([*cells, "--out", str(out), "--allow-missing", "seed=1"])
    with zipfile.ZipFile(out) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert list(texts) == ["STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "AX.tsv"]
    for text in texts.values():
        header, *lines = text.splitlines()
        assert header == "index\tprediction"
        assert [line.split("\t")[0] for line in lines] == [str(i) for i in range(ROWS)]
    mnli, stsb = (compose(*cells, "seed=1", f"primary={task}") for task in ("mnli", "stsb"))
    for name, exp in (("MNLI-m", mnli), ("MNLI-mm", mnli), ("AX", mnli), ("STS-B", stsb)):
        made = exp.predicted(official_rows(exp, BY_NAME[name].elsewhere))
        assert made.hit
        assert texts[f"{name}.tsv"] == BY_NAME[name].text(made.path / "test.parquet")
    told = capsys.readouterr().out
    assert "the server asks for all 11 files" in told
    for name in ("CoLA", "SST-2", "MRPC", "QQP", "QNLI", "WNLI"):
        assert f"{name}.tsv: {BY_NAME[name].task} was not asked for" in told
    assert len(artifacts(tmp_path, "finetune")) == 3  # one MNLI model writes three files
    assert len(artifacts(tmp_path, "test")) == 5
    before = artifacts(tmp_path, "*")
    write_submission(experiments(cells, "rte", "mnli", seed=1), out, allow_missing=True)
    assert artifacts(tmp_path, "*") == before
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "AX.tsv"]
        assert archive.read("AX.tsv").decode() == texts["AX.tsv"]


def test_missing_files_are_refused_before_anything_is_trained(
    tmp_path: Path, cells: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ax/test.parquet").unlink()
    write_split(tmp_path, "mnli", "test_matched", ROWS - 1)
    (tmp_path / "stsb/test.parquet").unlink()
    out = tmp_path / "submission.zip"
    with pytest.raises(SystemExit) as stopped:
        main([*cells, "--tasks", "mnli,stsb,rte", "--out", str(out)])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    for part in (
        "9 of 11 files cannot be made", "MRPC: mrpc was not asked for", "MNLI-m: 5 test rows, the official file has 6",
        "STS-B: task 'stsb' has no test split", "AX: task 'ax': no file", "--allow-missing leaves them out",
    ):  # fmt: skip
        assert part in message
    assert "RTE:" not in message
    assert not out.exists()
    assert not artifacts(tmp_path, "finetune")


def test_nothing_at_all_is_refused_also_where_files_may_be_missing(tmp_path: Path, cells: list[str]) -> None:
    write_split(tmp_path, "rte", "test", ROWS + 1)
    with pytest.raises(UserError, match=r"11 of 11 files cannot be made .*RTE: 7 test rows, the official file has 6"):
        write_submission(experiments(cells, "rte"), tmp_path / "x.zip", allow_missing=True)


def test_a_task_that_the_data_lacks_is_named(
    tmp_path: Path, cells: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*cells, "--tasks", "wnli", "--out", str(tmp_path / "x.zip"), "--allow-missing"])
    assert re.search(r"'wnli'.*mnli, rte", capsys.readouterr().err)
    assert not (tmp_path / "x.zip").exists()
