"""The stage `joint`: a few tasks trained together, or one alone, as often as each other; what they then score."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.batching.planned import UniformBatches
from fastmtl.data.pool import TaskPool
from fastmtl.data.rows import RowSet
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import inference_flops
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.plans import RelationsPlan
from fastmtl.seeds import generator
from fastmtl.stages.base import Context
from fastmtl.stages.fitting import FitStage, inference
from fastmtl.stages.pool import pool_of
from fastmtl.store import WEIGHTS
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig
from fastmtl.training.finetuned import predict


@dataclass(frozen=True, eq=False)
class JointTraining(FitStage):
    """The model of some tasks after a fixed number of batches: `scores.json` (task -> metrics, headline first), its
    predictions on the `measured` rows (`<task>.parquet`), learning curves and weights."""

    kind = "joint"
    sampling: UniformBatches
    measured: RowSet

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        records = self.train(" + ".join(self.rows), out, context, sampling=self.sampling)
        model = MultiTaskModel(self.encoder, self.rows.tasks)
        load_weights(model, out / WEIGHTS)
        model = model.eval().to(context.hardware.device)
        how = inference(context, self.encoder, self.fit.precision, as_trained=True)
        pool, scores = pool_of(context, self.encoder, self.measured), {}
        for task in self.rows.tasks:
            rows, positions = pool.split(task.name, self.measured.split), self.measured[task.name]
            scores[task.name] = predict(model, task, rows, how, out / f"{task.name}.parquet", positions)
            words = task.name in model.word_tasks
            records["flops"] += inference_flops(model.encoder, rows.lengths[positions], how, words)
        (out / "scores.json").write_text(json.dumps(scores, indent=1))
        return records


def joint_training(
    tasks: Sequence[TaskSpec], pool: TaskPool, names: Collection[str], plan: RelationsPlan, fit: FitConfig,
    encoder: EncoderSpec, seed: int,
) -> JointTraining:  # fmt: skip
    """The model of some tasks together, or of one alone, in whatever order they are named or the data lists them.

    The rows that measure a task are the same for every seed and for every model of the task.
    """
    ordered = sorted(names)
    rows = {name: pool.local(pool.rows_of(name)) for name in ordered}
    measured = {}
    for name in ordered:
        n, wanted = len(pool.split(name, "validation")), plan.validation_rows
        drawn = np.arange(n) if wanted is None else generator("validation", name).permutation(n)[:wanted]
        measured[name] = np.sort(drawn)
    return JointTraining(
        RowSet.of(tasks, rows), encoder, fit, seed, UniformBatches(plan.batches),
        RowSet.of(tasks, measured, "validation"),
    )  # fmt: skip
