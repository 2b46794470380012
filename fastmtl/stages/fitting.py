"""How stages train models and read them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmtl.data.batching.planned import Proportional
from fastmtl.data.rows import RowSet
from fastmtl.identity import LATER
from fastmtl.models.encoder import EncoderSpec, tokenizer_of
from fastmtl.models.inference import DTYPES, Inference
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.pool import pool_of
from fastmtl.store import WEIGHTS
from fastmtl.training.config import FitConfig
from fastmtl.training.fit import FitJob, run_fit


@dataclass(frozen=True, eq=False)
class FitStage(Stage):
    """A stage that trains one model on `rows`, the primary's first where there is a primary.

    `choose_by` says what rows that are measured on the way choose by; see `fastmtl.training.metrics.criterion`.
    """

    rows: RowSet
    encoder: EncoderSpec
    fit: FitConfig
    seed: int
    choose_by: str = field(default="headline", kw_only=True, metadata=LATER)

    def train(self, title: str, out: Path, context: Context, **more: Any) -> dict[str, Any]:
        """Train the model into a folder and return the cost records; `more` are other fields of `FitJob`."""
        job = FitJob(
            title=title, pool=pool_of(context, self.encoder, self.rows, more.get("evaluated")), encoder=self.encoder,
            rows=self.rows, fit=self.fit, seed=self.seed, pad_id=tokenizer_of(self.encoder).pad_id, out=out,
            hardware=context.hardware, choose_by=self.choose_by, resume=context.store.scratch(self.kind, self.key),
            **{"sampling": Proportional(), **more},
        )  # fmt: skip
        return run_fit(job)


def inference(context: Context, encoder: EncoderSpec, precision: str, as_trained: bool = False) -> Inference:
    """How forward passes run.

    `as_trained` reads a model in half precision exactly as validation does while it is trained, under autocast and
    padded: a reported score is then that of the chosen epoch.
    """
    assert precision in DTYPES, f"precision {precision} was not resolved"
    pack = not as_trained or precision == "fp32"
    return Inference(tokenizer_of(encoder).pad_id, context.hardware.device, precision, pack)  # type: ignore[arg-type]


def hold_weights(context: Context, stage: Stage, out: Path) -> Path:
    """A second name in `out` for the weights of a stage, which a parallel cell may drop meanwhile."""
    held = out / f"init.{WEIGHTS}"
    while True:
        weights = context.get(stage, WEIGHTS).path / WEIGHTS
        with suppress(FileNotFoundError):  # dropped since; the stage is built again
            try:
                os.link(weights, held)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(weights, held)
            return held
