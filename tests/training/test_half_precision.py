"""A fit in half precision is reported as it was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.cli.compose import compose
from fastmtl.models.inference import Inference
from fastmtl.training.finetuned import load_finetuned, predict

CELL = [
    "data=sample", "data.rows_per_task=60", "encoder=tiny", "selection=none", "protocol=paper", "trainer=cpu",
    "finetune.fit.epochs=3", "finetune.fit.learning_rate=5e-3",
]  # fmt: skip


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_reported_metrics_are_those_of_the_chosen_epoch(tmp_path: Path, precision: str) -> None:
    """Under `protocol=paper` the reported rows choose the epoch; bf16 is emulated where the processor lacks it."""
    exp = compose(*CELL, f"finetune.fit.precision={precision}", f"paths.output={tmp_path}")
    artifact = exp.finetune()
    fit = json.loads((artifact.path / "fit.json").read_text())
    reported = artifact.read("metrics.json")
    chosen = fit["epochs"][fit["best_epoch"]]
    assert reported["best_epoch"] == fit["best_epoch"]
    assert reported["validation"]["accuracy"] == chosen["accuracy"]
    assert reported["validation"]["loss"] == pytest.approx(chosen["loss"], rel=1e-6)
    assert fit["records"]["precision"] == precision


def test_weights_cast_to_half_precision_would_answer_otherwise(tmp_path: Path) -> None:
    """So that the test above could fail."""
    exp = compose(*CELL, "finetune.fit.precision=bf16", f"paths.output={tmp_path}")
    reported: dict[str, Any] = exp.finetune().read("metrics.json")["validation"]
    model, task = load_finetuned(exp.finetune().path)
    how = Inference(0, torch.device("cpu"), "bf16")
    cast = predict(model, task, exp.pool.split(exp.primary, "validation"), how, tmp_path / "cast.parquet")
    assert cast is not None
    assert abs(cast["loss"] / reported["loss"] - 1) > 1e-5
    assert np.isclose(cast["loss"], reported["loss"], rtol=0.05)
