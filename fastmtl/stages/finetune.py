"""The stage `finetune`: the primary, alone in the end, from the multi-task weights where there are some."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmtl.data.rows import RowSet
from fastmtl.identity import LATER
from fastmtl.stages.base import Context
from fastmtl.stages.fitting import FitStage, hold_weights, inference
from fastmtl.stages.multitask import Multitask
from fastmtl.stages.pool import pool_of
from fastmtl.training.finetuned import load_finetuned, predict, write_config


@dataclass(frozen=True, eq=False)
class Finetune(FitStage):
    """Weights of the best epoch, its predictions and metrics on the reported rows.

    `evaluated` are the rows that choose the epoch, `reported` those that are reported on: the validation split. With
    `keep_selected` above 0 the selected rows are among `rows`: that share of them is read in the first epoch, and a
    linearly falling one, which would be 0 after the last, in those that follow.
    """

    kind = "finetune"
    version = 2
    evaluated: RowSet
    reported: RowSet
    multitask: Multitask | None
    keep_selected: float = field(default=0.0, metadata=LATER)
    heads: tuple[tuple[str, str], ...] = field(default=(), metadata=LATER)

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        started = time.perf_counter()
        init = hold_weights(context, self.multitask, out) if self.multitask else None
        epochs = range(self.fit.epochs) if self.keep_selected else ()
        records = self.train(
            "finetune", out, context, init=init, evaluated=self.evaluated, heads=dict(self.heads),
            shares=tuple(self.keep_selected * (1 - epoch / self.fit.epochs) for epoch in epochs),
        )  # fmt: skip
        if init is not None:
            init.unlink()
        ((name, positions),) = self.reported.items()
        rows = pool_of(context, self.encoder, self.reported).split(name, self.reported.split)
        task = self.reported.tasks[0]
        write_config(out, self.encoder, task)
        model = load_finetuned(out)[0].to(context.hardware.device)
        how = inference(context, self.encoder, self.fit.precision, as_trained=True)
        metrics = predict(model, task, rows, how, out / "validation.parquet", positions)
        fit = json.loads((out / "fit.json").read_text())
        chosen = {"best_epoch": fit["best_epoch"], "epochs": fit["epochs"]}
        (out / "metrics.json").write_text(json.dumps({"validation": metrics, **chosen}, indent=1))
        return {**records, "wall_s": round(time.perf_counter() - started, 3)}
