"""The stage `finetune`: the primary alone, from the multi-task weights where there are some."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastmtl.data.samplers import Proportional
from fastmtl.stages.ground import Ground
from fastmtl.stages.multitask import Multitask
from fastmtl.store import WEIGHTS, digest
from fastmtl.training.finetuned import load_finetuned, predict, write_config
from fastmtl.training.modules import FitConfig


@dataclass(frozen=True, eq=False)
class Finetune:
    """Weights of the best epoch, its predictions and metrics on the validation split; `Test` reads the test split."""

    ground: Ground
    fit: FitConfig
    multitask: Multitask | None
    name: ClassVar[str] = "finetune"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        ground = self.ground
        train, held = ground.primary_rows
        return {
            "version": 1,
            "held_out": ground.rows_identity({ground.primary: held}, ground.encoder),
            "multitask": digest(self.multitask.identity) if self.multitask else None,
            **ground.fit_identity({ground.primary: train}, self.fit, ground.encoder, Proportional()),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        ground = self.ground
        init = ground.artifact(self.multitask, WEIGHTS).path / WEIGHTS if self.multitask else None
        started = time.perf_counter()
        records = ground.fit(
            "finetune", {ground.primary: ground.primary_rows[0]}, self.fit, out, ground.encoder, init=init,
            evaluated=ground.evaluated,
        )  # fmt: skip
        task = ground.pool.task(ground.primary)
        write_config(out, ground.encoder, task)
        model = load_finetuned(out)[0].to(ground.where.device)
        how = ground.inference(ground.encoder, self.fit.precision)
        rows = ground.pool.split(task.name, "validation")
        metrics = {"validation": predict(model, task, rows, how, out / "validation.parquet")}
        fit = json.loads((out / "fit.json").read_text())
        chosen = {"best_epoch": fit["best_epoch"], "epochs": fit["epochs"], "protocol": ground.protocol.name}
        (out / "metrics.json").write_text(json.dumps({**metrics, **chosen}, indent=1))
        return {**records, "wall_s": round(time.perf_counter() - started, 3)}
