"""What watches a fit: the best epoch's weights, the learning curves, one progress bar."""

from __future__ import annotations

import copy
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from tqdm import tqdm

from fastmtl.data.batching.online import Online, is_rewarded_by_validation
from fastmtl.progress import progress
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import criterion

CURVE_EVERY_N_STEPS = 10
"""The interval of Bingel & Søgaard's logs, whose curve features are computed from such curves."""


def full_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """A copy of the state dict on the CPU, or nothing without `keep`; where weights are sharded, all ranks must ask."""
    whole = ((n, t.full_tensor() if isinstance(t, DTensor) else t) for n, t in model.state_dict().items())
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in whole if keep}


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """What validation has just measured on the evaluated rows."""
    named = ((name.partition("/"), float(value)) for name, value in trainer.callback_metrics.items())
    return {name: value for (group, _, name), value in named if group == "choose"}


class KeepBest(Callback):
    """Keeps the weights of the best epoch (see `criterion`); ties go to the lower loss, then the earlier."""

    def __init__(self, metrics: Sequence[str], choose_by: str = "headline") -> None:
        self.metrics, self.choose_by = metrics, choose_by
        self.history: list[dict[str, float]] = []
        self.epoch = -1
        self.state: dict[str, Tensor] = {}
        self._best = (-np.inf, -np.inf)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare this epoch; the metrics are the same on every rank."""
        values = measured(trainer)
        self.history.append(values)
        value = criterion(values, self.metrics, self.choose_by)
        score = (value if np.isfinite(value) else -np.inf, -values["loss"])  # a constant prediction has no correlation
        if score > self._best or self.epoch < 0:
            self._best, self.epoch = score, trainer.current_epoch
            assert isinstance(pl_module.model, nn.Module)
            self.state = full_state(pl_module.model, trainer.is_global_zero)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"history": self.history, "epoch": self.epoch, "state": self.state, "best": list(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self.history, self.epoch, self.state = (state_dict[name] for name in ("history", "epoch", "state"))
        self._best = tuple(state_dict["best"])


class Stop(Callback):
    """Ends training after `max_steps` steps, or when `KeepBest` has kept no new epoch for `patience` epochs.

    Lightning's own `max_steps` skips the validation of an epoch that it cuts short, and so the choice of its weights.
    """

    def __init__(self, max_steps: int | None, patience: int | None) -> None:
        self.max_steps, self.patience = max_steps, patience

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Compare the optimizer's steps; validation still follows."""
        if self.max_steps is not None and trainer.global_step >= self.max_steps:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the best epoch with this one; both are the same on every rank."""
        best = next((one for one in trainer.callbacks if isinstance(one, KeepBest)), None)  # type: ignore[attr-defined]
        if self.patience is not None and best is not None and trainer.current_epoch - best.epoch >= self.patience:
            trainer.should_stop = True


class Feedback(Callback):
    """Tells an online order and the loss weighting what the last steps did; on every rank the same.

    Between the order's episodes it takes the model back to where they start; the copy is as large as the model and its
    optimizer's state.
    """

    def __init__(self, choose_by: str = "headline") -> None:
        self.choose_by = choose_by
        self._start: tuple[list[Tensor], list[dict[str, Any]]] = [], []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A bandit's round has ended: the primary's value decides its reward."""
        online = trainer.datamodule.online  # type: ignore[attr-defined]
        if isinstance(online, Online) and is_rewarded_by_validation(online.sampling):
            evaluated = pl_module.evaluated
            assert isinstance(evaluated, TaskSpec)
            values: dict[str, float] = measured(trainer)
            values["criterion"] = criterion(values, evaluated.metrics, self.choose_by)
            online.tell(online.sampling.value(values, "criterion"))
            weights = list(pl_module.parameters())
            if online.starts:
                self._start = (
                    [weight.detach().clone() for weight in weights],
                    [copy.deepcopy(one.state_dict()) for one in trainer.optimizers],
                )
            if online.ends:
                with torch.no_grad():
                    for weight, then in zip(weights, self._start[0], strict=True):
                        weight.copy_(then)
                for one, state in zip(trainer.optimizers, self._start[1], strict=True):
                    one.load_state_dict(copy.deepcopy(state))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step whose gradients were watched has been made."""
        module: Any = pl_module
        if getattr(module, "watched", None) is None or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        seen = module.take()
        module.weigher.observe(seen.names, seen.losses_m, seen.gradients_mP)
        online = trainer.datamodule.online  # type: ignore[attr-defined]
        if isinstance(online, Online):
            primary_P, auxiliary_P = seen.gradients_mP
            online.tell(float(functional.cosine_similarity(primary_P, auxiliary_P, dim=0)))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self._start = state_dict["start"]


class Curves(Callback):
    """Learning curves: the mean of each value over its task's steps since the last point, and each epoch's metrics.

    A step is one of the optimizer, whatever the number of micro-batches. Values stay tensors until a point is due, so
    that no step waits for the device. On several devices they are rank zero's share of each batch.
    """

    def __init__(self) -> None:
        self.points: list[tuple[int, int, str, float]] = []
        self._waiting: dict[str, list[Tensor]] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect; every tenth step and at the last of an epoch, make a point of each value that occurred."""
        for name, (value, weight) in outputs["curves"].items():
            self._waiting.setdefault(name, []).append(torch.stack([value * weight, weight]))
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        is_last = trainer.is_last_batch or trainer.should_stop
        if stepped and (trainer.global_step % CURVE_EVERY_N_STEPS == 0 or is_last):
            names = sorted(self._waiting)
            sums = torch.stack([torch.stack(self._waiting[name]).sum(0) for name in names])
            for name, (value, weight) in zip(names, sums.tolist()):
                if weight > 0:  # else this rank had no row of the task
                    self._point(trainer, name, value / weight)
            self._waiting = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's metrics on the rows that choose it."""
        for name, value in trainer.callback_metrics.items():
            self._point(trainer, name, float(value))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"points": self.points, "waiting": self._waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self.points, self._waiting = list(state_dict["points"]), dict(state_dict["waiting"])

    def _point(self, trainer: pl.Trainer, name: str, value: float) -> None:
        self.points.append((trainer.global_step, trainer.current_epoch, name, value))

    def write(self, path: Path) -> None:
        """CSV with the columns step, epoch, name, value."""
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("step", "epoch", "name", "value"), *self.points])


class OneBar(Callback):
    """One progress bar with ETA over all steps of a fit."""

    def __init__(self, title: str, total_steps: int) -> None:
        self.title, self.total = title, total_steps
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank zero alone draws."""
        if trainer.is_global_zero:
            self.bar = progress(self.title, "step", self.total)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Advance to the optimizer's step."""
        if self.bar is not None:
            self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, *_: Any) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
