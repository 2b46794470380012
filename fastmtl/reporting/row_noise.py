"""How much of the scores of cells is the choice of the validation rows, from the predictions that their stages left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmtl.resampling import row_covariance
from fastmtl.tasks import TaskSpec

if TYPE_CHECKING:
    from pandas import DataFrame

Sums = Sequence[Mapping[str, float]]
"""Per seed, a weighted sum of cells' scores: id -> weight."""


@dataclass(frozen=True)
class RowNoise:
    """Covariance of the scores of `cells`, by the choice of the validation `rows`."""

    cells: Sequence[str] = ()
    covariance: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    rows: int = 0

    def covariance_of(self, sums: Sums) -> np.ndarray | None:
        """(n, n); None where it is unknown of a cell."""
        used = list(dict.fromkeys(chain(*sums)))
        if not set(used) <= set(self.cells):
            return None
        places = [self.cells.index(cell) for cell in used]
        weights = np.array([[one.get(cell, 0.0) for cell in used] for one in sums])
        found = weights @ self.covariance[np.ix_(places, places)] @ weights.T
        return None if np.isnan(found).any() else found


def row_noise(cells: DataFrame) -> RowNoise:
    """Of all cells of a setting that have their predictions, on the same resamples, always of the same seed."""
    import pandas

    predictions, labels, rows, score = {}, np.empty(0), None, None
    for cell, folder in zip(cells["id"], map(Path, cells["finetune"])):
        if (folder / "validation.parquet").exists():
            task = TaskSpec.from_dict(json.loads((folder / "config.json").read_text())["task"])
            table = pandas.read_parquet(folder / "validation.parquet").dropna(subset="label")
            labels, predictions[cell], rows = task.of_kind.coded(table, task)
            score = task.of_kind.weighted_score(cells["metric"].iloc[0])
    if score is None:
        return RowNoise()
    stacked = np.stack(list(predictions.values()))
    covariance = row_covariance(score, labels, stacked, np.random.default_rng(0), rows=rows)
    return RowNoise(list(predictions), covariance, len(labels) if rows is None else int(rows.max()) + 1)
