"""Batches of the token pool for Lightning: a plan of one-task batches an epoch, sharded by rank here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader, Dataset

from fastmtl.data.collate import collate
from fastmtl.data.pool import TaskPool, TokenRows, chunks
from fastmtl.data.samplers import Sampling, TaskBatch, shard
from fastmtl.models.inference import BATCH_ROWS, BATCH_TOKENS


class PlannedBatches(Dataset):
    """This rank's micro-batches of the plan, collated: `accumulate` successive items are its part of one batch."""

    def __init__(
        self, plan: list[TaskBatch], names: list[str], rows: list[TokenRows], pad_id: int,
        rank: int = 0, world: int = 1, accumulate: int = 1,
    ) -> None:  # fmt: skip
        self.plan, self.names, self.rows, self.pad_id = plan, names, rows, pad_id
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        return len(self.plan) * self.accumulate

    def __getitem__(self, i: int) -> dict[str, Any]:
        i, micro = divmod(i, self.accumulate)
        task, places = self.plan[i]
        places, weight = shard(places, self.rank + self.world * micro, self.world * self.accumulate)
        batch = collate(self.rows[task], places, self.pad_id)
        return {**batch, "task": self.names[task], "weight": torch.tensor(weight)}


class TaskData(pl.LightningDataModule):
    """Training rows by task, and the rows on which the epoch is chosen.

    `rows` maps a task to places in its training file, `evaluated` is (task, split, places). The order of an epoch is a
    function of seed and epoch alone, the same on every rank.
    """

    def __init__(
        self,
        pool: TaskPool,
        rows: Mapping[str, np.ndarray],
        sampling: Sampling,
        batch_size: int,
        seed: int,
        pad_id: int,
        evaluated: tuple[str, str, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.names = list(rows)
        self.rows = [pool.split(name, "train") for name in self.names]
        self.places = list(rows.values())
        self.lengths = [source.lengths[places] for source, places in zip(self.rows, self.places)]
        self.sampling, self.batch_size, self.seed, self.pad_id = sampling, batch_size, seed, pad_id
        self.evaluated = None
        if evaluated is not None:
            name, split, places = evaluated
            self.evaluated = (name, pool.split(name, split), places)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps, from the plan of an epoch, not from the trainer; every epoch has as many."""
        return len(self.plan(0))

    def plan(self, epoch: int) -> list[TaskBatch]:
        """The epoch's batches as (task, places in the task's file)."""
        planned = self.sampling.epoch(self.lengths, self.batch_size, np.random.default_rng([self.seed, epoch]))
        return [(task, self.places[task][picks]) for task, picks in planned]

    def visited(self, epochs: int) -> np.ndarray:
        """(n,) token counts of the rows that so many epochs visit, each as often as it is visited."""
        batches = (batch for epoch in range(epochs) for batch in self.plan(epoch))
        return np.concatenate([self.rows[task].lengths[places] for task, places in batches])

    def train_dataloader(self) -> DataLoader:
        """One epoch; the trainer asks again before each (`reload_dataloaders_every_n_epochs=1`)."""
        trainer = self.trainer
        assert trainer is not None
        return self._loader(
            PlannedBatches(
                self.plan(trainer.current_epoch), self.names, self.rows, self.pad_id,
                trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches,
            )
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader | list[Any]:
        """The rows on which the epoch is chosen, sorted by length; every row on exactly one rank."""
        if self.evaluated is None:
            return []
        assert self.trainer is not None
        name, rows, places = self.evaluated
        mine = places[self.trainer.global_rank :: self.trainer.world_size]
        order = np.argsort(rows.lengths[mine], kind="stable")
        plan = [(0, mine[part]) for part in chunks(order, rows.lengths[mine], BATCH_TOKENS, BATCH_ROWS)]
        return self._loader(PlannedBatches(plan, [name], [rows], self.pad_id))

    def _loader(self, batches: PlannedBatches) -> DataLoader:
        # From pinned memory a copy to the GPU does not make the host wait. Collating takes a thousandth of a step, so
        # neither worker processes nor a thread are worth their own cost.
        assert self.trainer is not None
        pinned = isinstance(self.trainer.accelerator, CUDAAccelerator)
        return DataLoader(batches, batch_size=None, pin_memory=pinned)
