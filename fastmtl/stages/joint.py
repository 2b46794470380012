"""The stage `joint`: a few tasks trained together, or one alone, as often as each other; what they then score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.samplers import UniformBatches
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.plans import RelationsPlan
from fastmtl.stages.ground import Ground, Rows
from fastmtl.store import WEIGHTS, digest
from fastmtl.training.finetuned import predict


@dataclass(frozen=True, eq=False)
class Joint:
    """The model of some tasks after a fixed number of batches: `scores.json` (task -> metrics, headline first), its
    predictions (`<task>.parquet`), learning curves and weights. The primary plays no part in it."""

    ground: Ground
    tasks: tuple[str, ...]
    plan: RelationsPlan
    name: ClassVar[str] = "joint"

    @cached_property
    def rows(self) -> Rows:
        """All training rows of the tasks that are kept."""
        pool = self.ground.pool
        return {name: pool.local(pool.rows_of(name)) for name in pool.names if name in self.tasks}

    @cached_property
    def measured(self) -> Rows:
        """Places in the validation split, the same for every seed and for every model of the task."""
        return {name: self._drawn(name) for name in self.rows}

    def _drawn(self, task: str) -> np.ndarray:
        n, wanted = len(self.ground.pool.split(task, "validation")), self.plan.validation_rows
        if wanted is None or wanted >= n:
            return np.arange(n)
        order = np.random.default_rng(int(digest(["validation", task]), 16)).permutation(n)
        return np.sort(order[:wanted])

    @property
    def _sampling(self) -> UniformBatches:
        return UniformBatches(self.plan.batches)

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        ground = self.ground
        return {
            "version": 1,
            "measured": ground.rows_identity(self.measured, ground.encoder),
            **ground.fit_identity(self.rows, self.plan.fit, ground.encoder, self._sampling),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        ground, fit = self.ground, self.plan.fit
        title = " + ".join(self.rows)
        records = ground.fit(title, self.rows, fit, out, ground.encoder, sampling=self._sampling)
        tasks = [ground.pool.task(name) for name in self.rows]
        model = MultiTaskModel(ground.encoder, tasks)
        load_weights(model, out / WEIGHTS)
        model = model.eval().to(ground.where.device)
        how = ground.inference(ground.encoder, fit.precision)
        scores = {}
        for task in tasks:
            rows, places = ground.pool.split(task.name, "validation"), self.measured[task.name]
            scores[task.name] = predict(model, task, rows, how, out / f"{task.name}.parquet", places)
        (out / "scores.json").write_text(json.dumps(scores, indent=1))
        return records
