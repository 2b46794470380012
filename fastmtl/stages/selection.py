"""The stage `selection`: the rows that are trained on beside the primary's, in rank order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.rows import RowSet
from fastmtl.seeds import derive
from fastmtl.selection.base import Selector
from fastmtl.selection.candidates import Candidates
from fastmtl.selection.cascade import overlap_at_least
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.scores import ShardScores, read_scores
from fastmtl.stages.utilities import Bandit, PredictedUtilities, read_utilities
from fastmtl.store import Artifact


@dataclass(frozen=True, eq=False)
class Selection(Stage):
    """`selection.parquet` (task, row, score), best first, and `counts.json`.

    Args:
        sizes: Task -> rows of its training file, for all tasks of the pool in order: row ids count through them.
        candidates: The rows that may be chosen.
        budget: None for a selector that does not use it.
        scores: Shards of scores of the candidates (of those that reached the last level of a cascade).
        reached: With a cascade, the candidates that its last level chooses among; it has read others for an audit.
    """

    kind = "selection"
    version = 3
    primary: str
    sizes: tuple[tuple[str, int], ...]
    candidates: RowSet
    selector: Selector
    budget: int | float | None
    scores: tuple[ShardScores, ...]
    reached: RowSet | None
    utilities: Bandit | PredictedUtilities | None
    seed: int

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        candidates, audited = self._valued(context)
        seed, budget = derive("select", self.seed, self.primary), self.budget or 1.0
        k = self.selector.size(candidates, budget, np.random.default_rng(seed))
        picks = self.selector.select(candidates, k, np.random.default_rng(seed))
        assert len(np.unique(picks)) == len(picks) == k, f"{self.selector} chose {len(picks)} rows, not {k}"
        chosen = candidates.at(picks)
        self._write(out, chosen)
        audit = {}
        if chosen.scores is not None and self.reached is not None:
            audit = {"audit": overlap_at_least(chosen.scores, audited, self.candidates.count - len(candidates))}
        return {"examples": len(chosen), "candidates": self.candidates.count, **audit}

    @property
    def _names(self) -> list[str]:
        return [name for name, _ in self.sizes]

    @property
    def _starts(self) -> np.ndarray:
        """(T + 1,) the first row id of each task, and the number of all rows."""
        return np.cumsum([0, *(size for _, size in self.sizes)], dtype=np.int64)

    def row_ids(self, rows: RowSet) -> np.ndarray:
        """(n,) int64, ascending within each task."""
        starts = dict(zip(self._names, self._starts))
        return np.concatenate([np.empty(0, np.int64), *(starts[name] + positions for name, positions in rows.items())])

    def _valued(self, context: Context) -> tuple[Candidates, np.ndarray]:
        """The candidates that are chosen among, with what they and their tasks are worth; scores of audited rows."""
        row_ids, scores, audited = self.row_ids(self.candidates), None, np.empty(0, dtype=np.float32)
        if self.scores:
            read, values = read_scores(context, self.scores, self.primary)
            found = np.concatenate([self.row_ids(rows) for rows in read])
            wanted = np.isin(found, row_ids if self.reached is None else self.row_ids(self.reached), assume_unique=True)
            row_ids, scores, audited = found[wanted], values[wanted], values[~wanted]
        utilities = None
        if self.utilities:
            known = read_utilities(context.get(self.utilities))
            utilities = np.array([known[name] for name in self._names], dtype=float)
        return self._candidates(row_ids, scores, utilities), audited

    def _candidates(self, row_ids: np.ndarray, scores: np.ndarray | None, utilities: np.ndarray | None) -> Candidates:
        task_ids = np.searchsorted(self._starts, row_ids, side="right") - 1
        return Candidates(row_ids, task_ids, scores, tuple(self._names), utilities)

    def check_budget(self) -> int:
        """Rows that are chosen at most; a `UserError` for a budget that cannot be met, before anything is trained."""
        return self.selector.size(
            self._candidates(self.row_ids(self.candidates), None, None), self.budget or 1.0, np.random.default_rng(0)
        )

    def _write(self, out: Path, chosen: Candidates) -> None:
        tasks = np.array(self._names)[chosen.task_ids]
        scores = chosen.scores if chosen.scores is not None else np.full(len(chosen), np.nan, dtype=np.float32)
        table = pa.table({"task": tasks, "row": chosen.row_ids - self._starts[chosen.task_ids], "score": scores})
        pa.parquet.write_table(table, out / "selection.parquet")
        counts = {name: int(np.sum(tasks == name)) for name in self._names if name != self.primary}
        (out / "counts.json").write_text(json.dumps(counts, indent=1))


def read_selected(selection: Artifact, starts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(k,) row ids, best first; `starts` are the first row ids of the tasks."""
    table = pd.read_parquet(selection.path / "selection.parquet")
    return table["row"].to_numpy() + starts[pd.Index(names).get_indexer(table["task"])]
