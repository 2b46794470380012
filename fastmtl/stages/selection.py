"""The stage `selection`: the rows that are trained on beside the primary's, in rank order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.pool import TaskPool
from fastmtl.plans import ScoringPlan
from fastmtl.scoring.cascade import overlap_at_least
from fastmtl.selection import BestTasks, Candidates, PickedTasks, Selector
from fastmtl.stages.ground import Ground
from fastmtl.stages.scores import Scored
from fastmtl.stages.utilities import read_utilities
from fastmtl.store import Artifact, digest


@dataclass(frozen=True, eq=False)
class Selection:
    """`selection.parquet` (task, row, score), best first, and `counts.json`.

    `candidates` are row ids, less the sample that `left_out` describes; `budget` asks for `num_wanted` of them.
    `scored` and `utilities` value rows and tasks where the selector needs it; `cascade` is the plan of the passes where
    there are several.
    """

    ground: Ground
    selector: Selector
    candidates: np.ndarray
    left_out: list[Any] | None
    budget: int | float
    num_wanted: int
    scored: Scored | None
    utilities: Artifact | None
    cascade: ScoringPlan | None
    name: ClassVar[str] = "selection"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        identity: dict[str, Any] = {
            "version": 2,
            "pool": self.ground.pool.fingerprint,
            "primary": self.ground.primary,
            "selector": self.selector,
            "scores": digest([artifact.key for artifact in self.scored.artifacts]) if self.scored else None,
        }
        if self.utilities:
            identity |= {"utilities": self.utilities.key}
        if self.selector.uses_budget:
            identity |= {"budget": self.budget, "seed": self.ground.seed, "candidates": self.left_out}
        if self.cascade:
            identity |= {"keep": self.cascade.keep, "audit": self.cascade.audit}
        return identity

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        candidates, audited = self._valued()
        picks = self.selector.select(candidates, self.num_wanted, np.random.default_rng(self.ground.salt("select")))
        by_rows = self.selector.uses_budget and not isinstance(self.selector, PickedTasks | BestTasks)
        wanted = self.num_wanted if by_rows else len(picks)
        assert len(np.unique(picks)) == len(picks) == wanted, f"{self.selector} chose {len(picks)} rows, not {wanted}"
        chosen = candidates.at(picks)
        self._write(out, chosen)
        audit = {}
        if chosen.scores is not None and self.cascade:
            rejected = len(self.candidates) - len(candidates)
            audit = {"audit": overlap_at_least(chosen.scores, audited, rejected)}
        return {"examples": len(chosen), "candidates": len(self.candidates), **audit}

    def _valued(self) -> tuple[Candidates, np.ndarray]:
        """The candidates that are chosen among, with what they and their tasks are worth; scores of audited rows."""
        pool, row_ids, scores, audited = self.ground.pool, self.candidates, None, np.empty(0, dtype=np.float32)
        if self.scored:
            row_ids, scores = self.scored.last()
            reached = np.isin(row_ids, self.scored.reached, assume_unique=True)
            audited = scores[~reached]
            row_ids, scores = row_ids[reached], scores[reached]
        utilities = None
        if self.utilities:
            known = read_utilities(self.utilities)
            utilities = np.array([known[name] for name in pool.names], dtype=float)
        return Candidates(row_ids, pool.task_of(row_ids), scores, tuple(pool.names), utilities), audited

    def _write(self, out: Path, chosen: Candidates) -> None:
        pool, k = self.ground.pool, len(chosen)
        table = {
            "task": np.array(pool.names)[chosen.task_ids],
            "row": pool.local(chosen.row_ids),
            "score": chosen.scores if chosen.scores is not None else np.full(k, np.nan, dtype=np.float32),
        }
        pa.parquet.write_table(pa.table(table), out / "selection.parquet")
        counts = {name: int(np.sum(table["task"] == name)) for name in pool.names if name != self.ground.primary}
        (out / "counts.json").write_text(json.dumps(counts, indent=1))


def read_selected(selection: Artifact, pool: TaskPool) -> np.ndarray:
    """(k,) row ids, best first."""
    table = pa.parquet.read_table(selection.path / "selection.parquet")
    starts = [pool.starts[pool.index(name)] for name in table["task"].to_pylist()]
    return table["row"].to_numpy() + np.array(starts, dtype=np.int64)
