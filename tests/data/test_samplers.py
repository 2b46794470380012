"""Plans of an epoch over integers, and a global batch split over ranks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fastmtl.data.samplers import Proportional, Sampling, TaskBatch, num_batches, shard

SAMPLINGS: list[Sampling] = [Proportional(), Proportional(window=1), Proportional(window=3)]
"""Every sampling whose epoch is each row once; a new one is one more entry here."""


def plan(
    sizes: list[int], batch_size: int, sampling: Sampling = SAMPLINGS[0], seed: int = 0, longest: int = 90
) -> list[TaskBatch]:
    lengths = [np.random.default_rng(t).integers(3, longest, size=n) for t, n in enumerate(sizes)]
    return sampling.epoch(lengths, batch_size, np.random.default_rng(seed))


def as_lists(batches: list[TaskBatch]) -> list[tuple[int, list[int]]]:
    return [(task, rows.tolist()) for task, rows in batches]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("sizes", [[1], [4], [5, 1], [128, 3, 32], [33, 0, 64], [1000, 7]], ids=str)
def test_an_epoch_visits_every_row_exactly_once_in_one_task_batches(
    sampling: Sampling, batch_size: int, sizes: list[int]
) -> None:
    batches = plan(sizes, batch_size, sampling)
    seen = Counter((task, row) for task, rows in as_lists(batches) for row in rows)
    assert seen == Counter((task, row) for task, n in enumerate(sizes) for row in range(n))
    assert all(1 <= len(rows) <= batch_size for _, rows in batches)
    assert len(batches) == num_batches(sizes, batch_size)


@pytest.mark.parametrize(("counts", "batch_size", "batches"), [([1], 32, 1), ([32, 33], 32, 3), ([5, 0, 4], 4, 3)])
def test_batches_are_counted_task_by_task(counts: list[int], batch_size: int, batches: int) -> None:
    assert num_batches(counts, batch_size) == batches


def test_the_order_is_a_function_of_the_generator() -> None:
    assert as_lists(plan([50, 20], 8, seed=1)) == as_lists(plan([50, 20], 8, seed=1))
    assert as_lists(plan([50, 20], 8, seed=1)) != as_lists(plan([50, 20], 8, seed=2))


def test_another_epoch_puts_other_rows_together() -> None:
    first, second = ({frozenset(rows) for _, rows in as_lists(plan([200], 4, seed=s))} for s in (1, 2))
    assert len(first & second) < 3


def padding(sampling: Sampling) -> int:
    lengths = np.concatenate([np.full(900, 8), np.full(100, 128)])  # a tenth of the rows is very long
    batches = sampling.epoch([lengths], 10, np.random.default_rng(0))
    return sum(int(lengths[rows].max()) * len(rows) - int(lengths[rows].sum()) for _, rows in batches)


def test_sorting_within_windows_saves_most_of_the_padding() -> None:
    assert padding(Proportional(window=16)) < 0.25 * padding(Proportional(window=1))


def test_each_task_comes_as_often_as_it_has_batches_and_is_spread_over_the_epoch() -> None:
    tasks = [task for task, _ in plan([800, 200], 10)]
    assert Counter(tasks) == {0: 80, 1: 20}
    first_halves = [sum(task for task, _ in plan([800, 200], 10, seed=seed)[:50]) for seed in range(40)]
    # 10 of the 20 batches are expected in the first half, with a standard deviation of 2 (hypergeometric)
    assert 9 < np.mean(first_halves) < 11
    assert min(first_halves) > 0


def test_the_incomplete_batch_is_not_always_made_of_the_longest_rows() -> None:
    lengths = np.arange(1, 19)  # 18 rows in batches of 8: one batch of 2
    means = []
    for seed in range(60):
        batches = Proportional().epoch([lengths], 8, np.random.default_rng(seed))
        (short,) = (rows for _, rows in batches if len(rows) == 2)
        means.append(lengths[short].mean())
    assert set(means) == {1.5, 9.5, 17.5}  # it may be the shortest two rows, the middle two, or the longest two


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 32])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_share_a_batch_and_their_weighted_mean_is_the_mean_over_all_rows(n: int, world: int) -> None:
    rows = np.random.default_rng(n).permutation(100)[:n]
    loss = np.random.default_rng(0).normal(size=100)
    parts = [shard(rows, rank, world) for rank in range(world)]
    assert sorted(row for part, weight in parts if weight > 0 for row in part.tolist()) == sorted(rows.tolist())
    averaged = np.mean([weight * loss[part].mean() for part, weight in parts])
    assert averaged == pytest.approx(loss[rows].mean())


def test_a_rank_without_rows_still_takes_part_with_weight_zero() -> None:
    part, weight = shard(np.array([5]), rank=1, world=2)
    assert (part.tolist(), weight) == ([5], 0.0)
