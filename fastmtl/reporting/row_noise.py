"""How much of the scores of cells is the choice of the validation rows, from the predictions that their stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmtl.resampling import row_covariance
from fastmtl.tasks import NEGATIVE_TAG

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
    """Of all cells of a setting that have their predictions, on the same resamples.

    With a fixed seed of its own: the same cells make the same table.
    """
    predictions, labels, rows = {}, np.empty(0), None
    for cell, folder in zip(cells["id"], cells["finetune"]):
        path = Path(folder) / "validation.parquet"
        if path.exists():
            labels, predictions[cell], rows = _predictions(path)
    if not predictions:
        return RowNoise()
    stacked = np.stack(list(predictions.values()))
    covariance = row_covariance(cells["metric"].iloc[0], labels, stacked, np.random.default_rng(0), rows=rows)
    return RowNoise(list(predictions), covariance, len(labels) if rows is None else int(rows.max()) + 1)


def _predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Labels and predictions (rows,) that `training.finetuned.predict` wrote: class codes, or values.

    Of a tagging task they are of its words, the negative tag being -1, and the third says of which row each word is.
    """
    import pandas

    table = pandas.read_parquet(path).dropna(subset="label")
    names = [column.removeprefix("p_") for column in table if column.startswith("p_")]  # in the order of the codes
    if names:
        label, prediction = (pandas.Categorical(table[key], names).codes for key in ("label", "prediction"))
        return label, prediction, None
    if table["label"].dtype != object:
        return table["label"].to_numpy(float), table["prediction"].to_numpy(float), None
    words = table.reset_index(drop=True).explode(["label", "prediction"])
    codes = {NEGATIVE_TAG: -1} | {tag: i for i, tag in enumerate(sorted({*words["label"]} - {NEGATIVE_TAG}))}
    # A tag that no label has is wrong, whichever it is.
    label, prediction = (words[key].map(codes).fillna(len(codes)).to_numpy(int) for key in ("label", "prediction"))
    return label, prediction, words.index.to_numpy()
