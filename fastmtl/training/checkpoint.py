"""Checkpoints inside a fit: a killed one resumes where it was, and ends in the same numbers."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from fastmtl.training.datamodule import TaskData

NAME = "fit.ckpt"
ASK_EVERY_N_BATCHES = 10
"""Between two looks at the clock, which on several devices all ranks take together."""


class Checkpoint(Callback):
    """Saves all that the rest of a fit depends on: what Lightning saves, random states, and the place in the data.

    It saves between two optimizer steps, when the next batch was drawn but not yet used.

    Args:
        folder: Where the file is kept; it must outlive the process.
        every_s: Seconds between two checkpoints.
        data: The fit's data.
    """

    def __init__(self, folder: Path, every_s: float, data: TaskData) -> None:
        self.path, self.every_s, self.data = folder / NAME, every_s, data
        self._last = time.monotonic()
        self._batch = 0
        self._random: dict[str, Any] | None = None

    def found(self) -> Path | None:
        """The checkpoint of an earlier process, if there is one."""
        return self.path if self.path.exists() else None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Resume the random states, or save when it is time."""
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"] is not None:
                torch.cuda.set_rng_state(self._random["cuda"])
            self._random = None
            return
        between_steps = batch_idx and batch_idx % trainer.accumulate_grad_batches == 0
        if not between_steps or batch_idx % ASK_EVERY_N_BATCHES:
            return
        due = time.monotonic() - self._last >= self.every_s
        if trainer.strategy.broadcast(due):
            self._batch = batch_idx
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.path.with_suffix(".draft")
            trainer.save_checkpoint(draft)
            if trainer.is_global_zero:
                os.replace(draft, self.path)
            self._last = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning does not save."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return {"random": {"cpu": torch.get_rng_state(), "cuda": cuda}, "data": self.data.state(self._batch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume; the random states only when the first batch is trained on."""
        self._random = state_dict["random"]
        self.data.restore(state_dict["data"])

    def drop(self) -> None:
        """Delete the file: the fit is over."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
