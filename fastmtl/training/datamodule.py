"""Batches of the token pool for Lightning: a plan of one-task batches an epoch, sharded by rank here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader, Dataset, Sampler

from fastmtl.data.batching.online import Online, OnlineSampling
from fastmtl.data.batching.planned import Sampling, Step, planned_steps, shard
from fastmtl.data.collate import collate
from fastmtl.data.pool import TaskPool, TokenRows, chunks
from fastmtl.data.rows import RowSet
from fastmtl.models.inference import BATCH_ROWS, BATCH_TOKENS


class PlannedBatches(Dataset):
    """This rank's micro-batches of the steps, collated: `accumulate` successive items are its part of one step.

    An item is a list of one-task batches. `weight` is the factor of a batch's mean loss (see `shard`), which is 0 if it
    `repeats` a row of another rank; `share` is the batch's part of the step's rows. `served` collects task and token
    count (2, n) of the rows of each step, over all ranks.
    """

    def __init__(
        self, steps: Sequence[Step], names: list[str], rows: list[TokenRows], positions: list[np.ndarray], pad_id: int,
        rank: int = 0, world: int = 1, accumulate: int = 1, served: list[np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        self.steps, self.names, self.rows, self.positions, self.pad_id = steps, names, rows, positions, pad_id
        self.rank, self.world, self.accumulate, self.served = rank, world, accumulate, served

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __getitem__(self, i: int) -> list[dict[str, Any]]:
        i, micro = divmod(i, self.accumulate)
        step = [(task, self.positions[task][picks]) for task, picks in self.steps[i]]
        if self.served is not None and micro == 0:
            lengths = ((task, self.rows[task].lengths[positions]) for task, positions in step)
            self.served += [np.stack([np.full_like(length, task), length]) for task, length in lengths]
        whole = sum(len(positions) for _, positions in step)
        return [self._part(task, positions, len(positions) / whole, micro) for task, positions in step]

    def _part(self, task: int, positions: np.ndarray, share: float, micro: int) -> dict[str, Any]:
        rows, parts = self.rows[task], self.world * self.accumulate
        mine, weight = shard(positions, self.rank + self.world * micro, parts)
        if weight and rows.tags is not None:  # its mean loss is that of words
            weight = float(rows.words[mine].sum() * parts / rows.words[positions].sum())
        batch = {**collate(rows, mine, self.pad_id), "task": self.names[task], "repeats": weight == 0}
        return {**batch, "weight": torch.tensor(weight), "share": torch.tensor(share)}


class _From(Sampler[int]):
    """The batches of an epoch from one on; Lightning counts those before it as done."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.count))

    def __len__(self) -> int:
        return self.count


class TaskData(pl.LightningDataModule):
    """Training rows by task, and the rows that are evaluated on the way.

    `rows` are the training rows, the primary's first; `evaluated` are rows of one task. A step has up to `parts`
    one-task batches. Under a planned sampling the order of an epoch is a function of seed and epoch alone; under an
    online one of the rewards too, which are the same on every rank. `shares`, where given, are the share of the rows of
    all tasks but the first that each epoch reads, drawn anew; every epoch is planned then.
    """

    def __init__(
        self,
        pool: TaskPool,
        rows: RowSet,
        sampling: Sampling | OnlineSampling,
        batch_size: int,
        seed: int,
        pad_id: int,
        evaluated: RowSet | None = None,
        parts: int = 1,
        shares: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.names = list(rows)
        self.rows = [pool.split(name, "train") for name in self.names]
        self.positions = list(rows.positions)
        self.lengths = [source.lengths[positions] for source, positions in zip(self.rows, self.positions)]
        self.sampling, self.batch_size, self.seed, self.pad_id, self.parts = sampling, batch_size, seed, pad_id, parts
        self.online = None if isinstance(sampling, Sampling) else Online(sampling, self.lengths, batch_size, seed)
        self.shares = shares
        self.served: list[np.ndarray] = []
        self.validated: list[np.ndarray] = []
        self.steps_now: Sequence[Step] = []
        self._resumed: tuple[int, Any] | None = None
        self.evaluated = None
        if evaluated is not None:
            ((name, positions),) = evaluated.items()
            self.evaluated = (name, pool.split(name, evaluated.split), positions)

    def num_steps(self, epochs: int) -> int:
        """Optimizer steps of so many epochs, from their plans, not from the trainer."""
        # Every epoch has as many steps, unless it reads other shares of the rows or parts do not divide the batch.
        if not self.shares and (self.online is not None or self.batch_size % self.parts == 0):
            return epochs * len(self.steps(0))
        return sum(len(self.steps(epoch)) for epoch in range(epochs))

    def steps(self, epoch: int) -> Sequence[Step]:
        """The epoch's steps; the rows of a batch are positions in the task's rows here."""
        if not isinstance(self.sampling, Sampling):
            assert self.online is not None
            self.online.start(epoch)
            return self.online
        rng = np.random.default_rng([self.seed, epoch])
        if not self.shares:
            return planned_steps(self.sampling, self.lengths, self.batch_size, self.parts, rng)
        first, *others = map(len, self.lengths)
        drawn = [np.sort(rng.permutation(count)[: round(self.shares[epoch] * count)]) for count in others]
        kept = [np.arange(first), *drawn]
        lengths = [one[rows] for one, rows in zip(self.lengths, kept)]
        steps = planned_steps(self.sampling, lengths, self.batch_size, self.parts, rng)
        return [[(task, kept[task][rows]) for task, rows in step] for step in steps]

    def visited(self) -> tuple[np.ndarray, np.ndarray]:
        """Tasks and token counts (n,) of the rows that were trained on so far, each as often as it was."""
        task_n, length_n = np.concatenate(self.served, axis=1)
        return task_n, length_n

    def measured(self) -> np.ndarray:
        """(n,) token counts of the rows that validation read so far, each as often as it was."""
        return np.concatenate([np.empty((2, 0), np.int64), *self.validated], axis=1)[1]

    def train_dataloader(self) -> DataLoader:
        """One epoch; the trainer asks again before each (`reload_dataloaders_every_n_epochs=1`)."""
        trainer = self.trainer
        assert trainer is not None
        self.steps_now = self.steps(trainer.current_epoch)
        batches = PlannedBatches(
            self.steps_now, self.names, self.rows, self.positions, self.pad_id,
            trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches, self.served,
        )  # fmt: skip
        first = 0
        if self._resumed is not None:
            first, online = self._resumed
            if self.online is not None:
                self.online.restore(online)
            self._resumed = None
        return self._loader(batches, first)

    def state(self, batch: int) -> dict[str, Any]:
        """Plain values from which `restore` goes on with the batch that was asked for last, before it is trained on."""
        assert self.trainer is not None
        parts = len(self.steps_now[batch // self.trainer.accumulate_grad_batches])
        served = np.concatenate([np.empty((2, 0), np.int64), *self.served[: len(self.served) - parts]], axis=1)
        online = self.online.state() if self.online is not None else None
        validated = np.concatenate([np.empty((2, 0), np.int64), *self.validated], axis=1)
        counts = {"served": torch.from_numpy(served), "validated": torch.from_numpy(validated)}
        return {"batch": batch, **counts, "online": online}

    def restore(self, state: dict[str, Any]) -> None:
        """The next training data loader starts where `state` was taken."""
        self.served[:], self.validated[:] = [state["served"].numpy()], [state["validated"].numpy()]
        self._resumed = state["batch"], state["online"]

    def val_dataloader(self) -> DataLoader | list[Any]:
        """The evaluated rows, sorted by length; every row counts on one rank, and all ranks have as many batches.

        A rank with fewer batches would leave the others waiting for it.
        """
        if self.evaluated is None:
            return []
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        name, rows, positions = self.evaluated
        lengths = rows.lengths[positions]
        order = np.argsort(lengths, kind="stable")
        steps = [[(0, part)] for part in chunks(order, lengths, BATCH_TOKENS * world, BATCH_ROWS * world)]
        batches = PlannedBatches(steps, [name], [rows], [positions], self.pad_id, rank, world, served=self.validated)
        return self._loader(batches)

    def _loader(self, batches: PlannedBatches, first: int = 0) -> DataLoader:
        # From pinned memory a copy to the GPU does not make the host wait. Collating takes a thousandth of a step, so
        # neither worker processes nor a thread are worth their own cost.
        assert self.trainer is not None
        pinned = isinstance(self.trainer.accelerator, CUDAAccelerator)
        return DataLoader(batches, batch_size=None, pin_memory=pinned, sampler=_From(first, len(batches)))
