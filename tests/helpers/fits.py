"""Fits of a few rows, and what they leave in their folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fastmtl.data.batching.planned import Proportional
from fastmtl.training.config import Hardware
from fastmtl.training.fit import FitJob, run_fit
from tests.helpers.toy import row_sets

CPU = Hardware(accelerator="cpu")
ROWS = 12
"""Training rows of each task of the toy pools."""


def finished(pool: Any, out: Path, **fields: Any) -> Path:
    """The folder of a finished fit, of all rows of all tasks unless `fields` of the job, with its encoder, differ."""
    out.mkdir()
    usual = {
        "title": out.name, "rows": {task: np.arange(ROWS) for task in pool.names},
        "sampling": Proportional(), "seed": 0, "pad_id": 0, "hardware": CPU,
    }  # fmt: skip
    run_fit(FitJob(pool=pool, out=out, **row_sets(pool, **{**usual, **fields})))
    assert not list(out.glob(".*")), "the job's file is gone"
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "weights.safetensors")


def fit_file(folder: Path) -> dict[str, Any]:
    """Epochs, the best of them, and the records of cost."""
    return json.loads((folder / "fit.json").read_text())


def records(folder: Path) -> dict[str, Any]:
    return fit_file(folder)["records"]


def curve_points(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_weights(a: Path, b: Path, atol: float) -> None:
    """Of the same names, and nearly equal; equal bit by bit for `atol=0`."""
    left, right = weights(a), weights(b)
    assert set(left) == set(right)
    for name, values in left.items():
        np.testing.assert_allclose(values, right[name], rtol=0 if atol == 0 else 1e-7, atol=atol, err_msg=name)
