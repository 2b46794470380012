"""The stage `test`: what the fine-tuned model says of test rows; no choice and no other stage depends on it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastmtl.data.pool import TokenRows
from fastmtl.models.inference import Precision
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.ground import Ground
from fastmtl.store import WEIGHTS, digest
from fastmtl.training.finetuned import load_finetuned, predict
from fastmtl.training.fit import device_name


@dataclass(frozen=True, eq=False)
class Test:
    """`test.parquet`, a prediction for each of the rows, and `metrics.json`: under `test` the metrics, or null where
    all labels are hidden."""

    ground: Ground
    finetune: Finetune
    rows: TokenRows
    precision: Precision | Literal["auto"]
    name: ClassVar[str] = "test"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "finetune": digest(self.finetune.identity),
            "rows": [self.rows.folder.name, self.rows.split],
            "precision": self.precision,
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        how = self.ground.inference(self.ground.encoder, self.precision)
        folder = self.ground.artifact(self.finetune, WEIGHTS).path
        started = time.perf_counter()
        model, task = load_finetuned(folder)
        metrics = predict(model.to(how.device), task, self.rows, how, out / "test.parquet")
        (out / "metrics.json").write_text(json.dumps({"test": metrics}, indent=1))
        return {
            "device": device_name(how.device),
            "precision": how.precision,
            "examples": len(self.rows),
            "tokens": int(self.rows.lengths.sum()),
            "flops": model.encoder.forward_flops(self.rows.lengths),
            "wall_s": round(time.perf_counter() - started, 3),
        }
