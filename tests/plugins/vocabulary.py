"""A scorer without a proxy that prepares a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.pool import TokenRows
from fastmtl.options import Count, options
from fastmtl.scoring.base import Needs, ScoringInputs

KNOWN = "known.npy"


@options
class Vocabulary:
    """The share of a row's tokens that occur in `fewest` of the primary's rows or more."""

    fewest: Count = 1

    needs: ClassVar[Needs] = "nothing"
    per_primary: ClassVar[bool] = True

    def prepare(self, inputs: ScoringInputs, out: Path) -> dict[str, Any]:
        """Write the ids of the primary's tokens."""
        primary = inputs.pool.split(inputs.primary, "train")
        ids = [np.unique(_ids(primary, position)) for position in inputs.target]
        found, counts = np.unique(np.concatenate(ids), return_counts=True)
        np.save(out / KNOWN, found[counts >= self.fewest])
        return {"flops": 0.0, "examples": len(ids)}

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """(1, n) shares."""
        assert state is not None
        known, rows = np.load(state / KNOWN), inputs.pool.split(task, "train")
        shares = [np.isin(_ids(rows, position), known).mean() for position in positions]
        return np.array(shares, dtype=np.float32)[None]


def _ids(rows: TokenRows, position: int) -> np.ndarray:
    return rows.ids[rows.offsets[position] : rows.offsets[position + 1]]
