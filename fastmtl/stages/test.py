"""The stage `test`: the fine-tuned model's answers on test rows; no choice and no other stage depends on it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmtl.data.rows import RowSet
from fastmtl.models.inference import Precision, inference_flops
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.fitting import inference
from fastmtl.stages.pool import pool_of
from fastmtl.store import WEIGHTS
from fastmtl.training.finetuned import load_finetuned, predict
from fastmtl.training.fit import device_name


@dataclass(frozen=True, eq=False)
class Test(Stage):
    """`test.parquet`, a prediction for each of the rows, and `metrics.json`: under `test` the metrics, or null where
    all labels are hidden."""

    kind = "test"
    finetune: Finetune
    rows: RowSet
    precision: Precision

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        how = inference(context, self.finetune.encoder, self.precision, as_trained=True)
        folder = context.get(self.finetune, WEIGHTS).path
        started = time.perf_counter()
        model, task = load_finetuned(folder)
        ((name, positions),) = self.rows.items()
        rows = pool_of(context, self.finetune.encoder, self.rows).split(name, self.rows.split)
        metrics = predict(model.to(how.device), task, rows, how, out / "test.parquet", positions)
        (out / "metrics.json").write_text(json.dumps({"test": metrics}, indent=1))
        return {
            "device": device_name(how.device),
            "precision": how.precision,
            "examples": len(positions),
            "tokens": int(rows.lengths[positions].sum()),
            "flops": inference_flops(model.encoder, rows.lengths[positions], how, task.name in model.word_tasks),
            "wall_s": round(time.perf_counter() - started, 3),
        }
