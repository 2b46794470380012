"""The stage `test`: what the fine-tuned model says of test rows; no choice and no other stage depends on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastmtl.data.pool import TokenRows
from fastmtl.models.inference import Precision
from fastmtl.stages.ground import Ground
from fastmtl.store import Artifact
from fastmtl.training.finetuned import load_finetuned, predict
from fastmtl.training.fit import device_name


@dataclass(frozen=True, eq=False)
class Test:
    """`test.parquet`, a prediction for each of the rows, and `metrics.json`: under `test` the metrics, or null where
    all labels are hidden."""

    ground: Ground
    finetune: Artifact
    rows: TokenRows
    precision: Precision | Literal["auto"]
    name: ClassVar[str] = "test"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "finetune": self.finetune.key,
            "rows": [self.rows.folder.name, self.rows.split],
            "precision": self.precision,
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        how = self.ground.inference(self.ground.encoder, self.precision)
        model, task = load_finetuned(self.finetune.path)
        metrics = predict(model.to(how.device), task, self.rows, how, out / "test.parquet")
        (out / "metrics.json").write_text(json.dumps({"test": metrics}, indent=1))
        return {
            "device": device_name(how.device),
            "precision": how.precision,
            "examples": len(self.rows),
            "tokens": int(self.rows.lengths.sum()),
            "flops": model.encoder.forward_flops(self.rows.lengths),
        }
