"""The test split is read only where it is measured or asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.cli.compose import compose
from fastmtl.data.rows import RowSet
from fastmtl.pipelines.experiment import Experiment
from fastmtl.stages.test import Test as Stage  # pytest would take `Test` for a class of tests


def cell(folder: Path, test_labels: list[int]) -> Experiment:
    """RTE, the primary, and WNLI of 20 rows each; without test labels there is no test split."""
    for task in ("rte", "wnli"):
        (folder / task).mkdir()
        for split in ("train", "validation", "test"):
            labels = test_labels if split == "test" else [0, 1] * 10
            columns = {"sentence1": ["a b"] * len(labels), "sentence2": ["c", "d"] * (len(labels) // 2)}
            if labels:
                pa.parquet.write_table(pa.table({**columns, "label": labels}), folder / task / f"{split}.parquet")
    return compose(
        "data=glue_local", f"data.root={folder}", "data.tasks=[rte,wnli]", "encoder=tiny", "selection=none",
        "finetune.fit.epochs=1", f"paths.output={folder / 'outputs'}",
    )  # fmt: skip


def stages(exp: Experiment, stage: str) -> list[str]:
    return [artifact.kind for artifact in exp.artifacts(stage)]


def test_a_report_measures_labelled_test_rows_and_finetune_reads_none(tmp_path: Path) -> None:
    exp = cell(tmp_path, [1, 0, -1, 1])
    assert stages(exp, "finetune")[-1] == "finetune"
    assert not list(tmp_path.glob("outputs/artifacts/*/*/test.parquet"))
    assert "test" not in exp.finetune().read("metrics.json")
    assert stages(exp, "report")[-1] == "test"
    test = exp.test()
    assert test is not None
    table = pyarrow.parquet.read_table(test.path / "test.parquet").to_pydict()
    assert table["row"] == [0, 1, 2, 3]
    assert table["label"] == ["not_entailment", "entailment", None, "not_entailment"]
    hits = [label == answer for label, answer in zip(table["label"], table["prediction"]) if label]
    assert test.read("metrics.json")["test"]["accuracy"] == pytest.approx(sum(hits) / 3)
    assert test.records["examples"] == 4
    assert test.records["flops"] > 0


def test_rows_with_hidden_labels_are_read_on_demand_alone(tmp_path: Path) -> None:
    exp = cell(tmp_path, [-1, -1])
    assert stages(exp, "report")[-1] == "finetune"
    assert stages(exp, "test")[-1] == "test"
    test = exp.test()
    assert test is not None
    assert test.read("metrics.json") == {"test": None}


def test_without_a_test_split_there_is_nothing(tmp_path: Path) -> None:
    assert cell(tmp_path, []).test() is None


def test_the_key_holds_model_rows_and_precision(tmp_path: Path) -> None:
    exp = cell(tmp_path, [1, 0, -1, 1])
    rows = RowSet.of(exp.tasks, {"rte": np.arange(4)}, "test")
    stage = Stage(exp.finetune_stage, rows, "fp32")
    others = [
        replace(stage, finetune=replace(exp.finetune_stage, seed=1)),
        replace(stage, rows=RowSet.of(exp.tasks, {"rte": np.arange(3)}, "test")),
        replace(stage, rows=replace(rows, split="validation")),
        replace(stage, precision="bf16"),
        stage,
    ]
    assert len({one.key for one in others}) == 5
    assert replace(stage).key == stage.key
