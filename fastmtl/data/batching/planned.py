"""The order of batches: each batch holds one task. A sampling plans whole epochs from integers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from fastmtl.errors import UserError
from fastmtl.identity import LATER
from fastmtl.options import Count, Natural, Positive, options

TaskBatch = tuple[int, np.ndarray]
"""Which task (its place in the list of lengths), and which of its rows (B,)."""
Step = list[TaskBatch]
"""What one step of the optimizer is made of: batches of different tasks; mostly one."""


@runtime_checkable
class Sampling(Protocol):
    """Plans an epoch."""

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        """All batches of one epoch in order. `lengths[t]` (n_t,) are the token counts of task t's rows, the primary's
        first. Every epoch has as many batches; what it is made of is a function of the arguments alone."""
        ...


@options
class Proportional:
    """Batches of all tasks in random order, each task as often as it has batches (MT-DNN, Liu et al. 2019).

    Rows are shuffled, then sorted by length within buckets of `length_bucket_batches` batches, but at most a quarter of
    the task, so that a batch pads little while its rows still change from epoch to epoch. 1 is plain shuffling.
    """

    length_bucket_batches: Count = 50

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        passes = (one_pass(one, batch_size, self.length_bucket_batches, rng) for one in lengths)
        batches = [(t, part) for t, parts in enumerate(passes) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))]


@options
class Uniform:
    """The task of each batch is drawn, all being equally likely (Bingel & Søgaard 2017).

    An epoch has as many batches as under `Proportional`; a task's rows come round again when all were seen.
    """

    length_bucket_batches: Count = 50

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        weights = np.array([1.0 if len(one) else 0.0 for one in lengths])
        return _drawn(weights, lengths, batch_size, self.length_bucket_batches, rng)


@options
class UniformBatches:
    """An epoch of `batches` batches for each task on average: `Uniform`, for a length that rows do not set.

    So a task is seen as often beside another one as alone, which gains are measured by (Bingel & Søgaard 2017).
    """

    batches: Count
    length_bucket_batches: Count = 50

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        tasks = rng.integers(len(lengths), size=self.batches * len(lengths))
        return _filled(tasks, lengths, batch_size, self.length_bucket_batches, rng)


@options
class Temperature:
    """The task of each batch is drawn with probability proportional to n_t^(1/temperature), n_t being its rows.

    1 is by size, more is closer to `Uniform` (temperature-scaled mixing: Raffel et al. 2020, section 3.5.2).
    """

    temperature: Positive = 2.0
    length_bucket_batches: Count = 50

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        sizes = np.array([len(one) for one in lengths], dtype=np.float64)
        return _drawn(sizes ** (1 / self.temperature), lengths, batch_size, self.length_bucket_batches, rng)


@options
class Ratio:
    """`ratios[t]` batches of task t in a row, then of the next task, round and round (AutoSeM, Guo et al. 2019).

    Args:
        ratios: The primary's comes first; a zero drops a task.
        length_bucket_batches: See `Proportional`.
        hold: What is the same for every ratio: the `steps`, as many as the tasks kept have batches (AutoSeM), so that
            the primary is passed the more often the larger its share; or `passes`, one over the primary in an epoch.
    """

    ratios: tuple[Natural, ...]
    length_bucket_batches: Count = 50
    hold: Literal["passes", "steps"] = field(default="steps", metadata=LATER)

    def __post_init__(self) -> None:
        if not self.ratios or self.ratios[0] == 0:
            raise UserError(
                f"sampling.ratios={list(self.ratios)} gives the primary no batch; its ratio, the first, is 1 or more"
            )

    def check(self, num_tasks: int) -> None:
        """A `UserError` unless there is one number a task."""
        if num_tasks != len(self.ratios):
            raise UserError(
                f"sampling.ratios={list(self.ratios)} has {len(self.ratios)} numbers for {num_tasks} tasks; give "
                "one for the primary and one for each auxiliary task with selected rows, in the data's order"
            )

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
        self.check(len(lengths))
        kept = [ratio if len(one) else 0 for ratio, one in zip(self.ratios, lengths)]
        cycle = np.repeat(np.arange(len(kept)), kept)
        if self.hold == "passes":
            whole, rest = divmod(num_batches([len(lengths[0])], batch_size), kept[0])
            last = np.repeat(np.arange(len(kept)), [round(ratio * rest / kept[0]) for ratio in kept])
            tasks = np.concatenate([np.tile(cycle, whole), last])
        else:
            tasks = np.resize(cycle, num_batches([len(one) for one, r in zip(lengths, kept) if r], batch_size))
        return _filled(tasks, lengths, batch_size, self.length_bucket_batches, rng)


def planned_steps(
    sampling: Sampling, lengths: list[np.ndarray], batch_size: int, parts: int, rng: np.random.Generator
) -> list[Step]:
    """An epoch in steps of `batch_size` rows, of nearly equal batches of up to `parts` tasks.

    Where `parts` does not divide the batch, epochs may differ by a few steps.
    """
    size, more = divmod(batch_size, parts)
    batches = sampling.epoch(lengths, size, rng)
    return grouped(_resized(batches, [size + 1] * more + [size] * (parts - more)) if more else batches, parts)


def _resized(batches: list[TaskBatch], sizes: list[int]) -> list[TaskBatch]:
    """The same rows and tasks in the same order, in batches of `sizes`, which are gone through again and again.

    No size may be below that of the batches. A task that has no more rows is passed over.
    """
    rows = {task: np.concatenate([part for t, part in batches if t == task]) for task in {t for t, _ in batches}}
    resized: list[TaskBatch] = []
    for task, _ in batches:
        part, rows[task] = np.split(rows[task], [sizes[len(resized) % len(sizes)]])
        if len(part):
            resized.append((task, part))
    return resized


def grouped(batches: list[TaskBatch], parts: int) -> list[Step]:
    """Steps of `parts` successive batches; those of one task are put together."""
    steps = []
    for start in range(0, len(batches), parts):
        step: dict[int, list[np.ndarray]] = {}
        for task, rows in batches[start : start + parts]:
            step.setdefault(task, []).append(rows)
        steps.append([(task, np.concatenate(some)) for task, some in step.items()])
    return steps


def _drawn(
    weights: np.ndarray, lengths: list[np.ndarray], batch_size: int, window: int, rng: np.random.Generator
) -> list[TaskBatch]:
    """An epoch whose batches' tasks are drawn independently, with probabilities proportional to `weights`."""
    steps = num_batches([len(one) for one in lengths], batch_size)
    tasks = rng.choice(len(weights), size=steps, p=weights / weights.sum())
    return _filled(tasks, lengths, batch_size, window, rng)


def _filled(
    tasks: np.ndarray, lengths: list[np.ndarray], batch_size: int, window: int, rng: np.random.Generator
) -> list[TaskBatch]:
    """A batch of rows for each task named: pass after pass over the task's rows, each shuffled anew."""
    waiting: list[Iterator[np.ndarray]] = []
    for t, count in enumerate(np.bincount(tasks, minlength=len(lengths))):
        passes: list[np.ndarray] = []
        while len(passes) < count:
            one = one_pass(lengths[t], batch_size, window, rng)
            passes += [one[i] for i in rng.permutation(len(one))]
        waiting.append(iter(passes))
    return [(int(t), next(waiting[t])) for t in tasks]


def one_pass(lengths_n: np.ndarray, batch_size: int, window: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A task's rows in batches, each row once."""
    batches: list[np.ndarray] = []
    order = rng.permutation(len(lengths_n))
    # A task in one window would be cut into nearly the same batches at every epoch.
    rows = batch_size * max(1, min(window, len(order) // (4 * batch_size)))
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        part = part[np.argsort(lengths_n[part], kind="stable")]
        # Cut from the short end at a random place, so that the incomplete batch is not always the longest rows.
        short = len(part) % batch_size
        cuts = np.arange(batch_size, len(part), batch_size)
        if short and len(cuts):
            cuts[int(rng.integers(len(cuts) + 1)) :] -= batch_size - short
        batches += np.split(part, cuts)
    return batches


def num_batches(counts: list[int], batch_size: int) -> int:
    """Batches of one-task batches that hold each of `counts` rows per task once."""
    return sum(-(-n // batch_size) for n in counts)


def shard(rows: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, float]:
    """One rank's part of a global batch, and the factor for its mean loss.

    Ranks average their gradients; with the factor n_rank * world / n that average is the mean over all n rows even
    when they do not divide evenly. A rank left without rows repeats one with factor 0.
    """
    part = rows[rank::world]
    return (part, len(part) * world / len(rows)) if len(part) else (rows[:1], 0.0)
