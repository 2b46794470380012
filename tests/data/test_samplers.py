"""Plans of an epoch over integers, and a global batch split over ranks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fastmtl.data.batching.planned import (
    Proportional,
    Ratio,
    Sampling,
    TaskBatch,
    Temperature,
    Uniform,
    UniformBatches,
    grouped,
    num_batches,
    planned_steps,
    shard,
)
from fastmtl.errors import UserError

SAMPLINGS: list[Sampling] = [
    Proportional(),
    Proportional(length_bucket_batches=1),
    Proportional(length_bucket_batches=3),
]
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


POLICIES: list[Sampling] = [
    *SAMPLINGS,
    Uniform(),
    Uniform(length_bucket_batches=1),
    Temperature(1.0),
    Temperature(5.0),
    Ratio((3, 1, 2)),
]
"""Every sampling, over three tasks; a new one is one more entry here."""


@pytest.mark.parametrize("sampling", POLICIES, ids=repr)
@pytest.mark.parametrize("sizes", [[64, 33, 200], [1, 1, 1], [500, 2, 40]], ids=str)
def test_every_policy_keeps_the_contract(sampling: Sampling, sizes: list[int]) -> None:
    batches = plan(sizes, 16, sampling)
    assert as_lists(batches) == as_lists(plan(sizes, 16, sampling))  # a function of its arguments
    assert all(len(plan(sizes, 16, sampling, seed=seed)) == len(batches) == num_batches(sizes, 16) for seed in range(5))
    for task, rows in batches:
        assert isinstance(task, int)
        assert 1 <= len(rows) <= 16
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) <= set(range(sizes[task]))


@pytest.mark.parametrize("sampling", POLICIES[len(SAMPLINGS) :], ids=repr)
def test_no_row_of_a_task_comes_again_before_all_others_came(sampling: Sampling) -> None:
    for task, size in enumerate([64, 33, 200]):
        order = [rows.tolist() for t, rows in plan([64, 33, 200], 16, sampling, seed=3) if t == task]
        times = Counter(row for rows in order for row in rows)
        assert not times or max(times.values()) - min(times.get(row, 0) for row in range(size)) <= 1


@pytest.mark.parametrize(("batch_size", "parts"), [(30, 4), (31, 4), (7, 3), (5, 5), (9, 2)])
@pytest.mark.parametrize("sampling", [Proportional(), Uniform(), Ratio((3, 1, 2))], ids=repr)
def test_a_step_has_the_whole_batch_in_nearly_equal_parts(sampling: Sampling, batch_size: int, parts: int) -> None:
    sizes = [200, 133, 400]
    lengths = [np.full(n, 9) for n in sizes]
    steps = planned_steps(sampling, lengths, batch_size, parts, np.random.default_rng(0))
    seen = Counter((task, row) for step in steps for task, rows in step for row in rows.tolist())
    if sampling == Proportional():
        assert set(seen.values()) == {1}
        assert len(seen) == sum(sizes)
    counts = [sum(len(rows) for _, rows in step) for step in steps]
    whole = [step for step, count in zip(steps, counts) if count == batch_size]
    assert max(counts) == batch_size
    # A task ends in an incomplete part once an epoch; where tasks are drawn, so may each pass over its rows.
    assert len(whole) >= len(steps) - (len(sizes) + 1) * (1 if sampling == Proportional() else 3)
    apart = [len(rows) for step in whole if len(step) == parts for _, rows in step]
    assert set(apart) <= {batch_size // parts, -(-batch_size // parts)}


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_that_divide_the_batch_are_planned_as_before(parts: int) -> None:
    lengths = [np.random.default_rng(t).integers(3, 90, size=n) for t, n in enumerate([64, 33, 200])]
    steps = planned_steps(Proportional(), lengths, 16, parts, np.random.default_rng(0))
    own = grouped(Proportional().epoch(lengths, 16 // parts, np.random.default_rng(0)), parts)
    assert [as_lists(step) for step in steps] == [as_lists(step) for step in own]


def shares(sampling: Sampling, sizes: list[int], batch_size: int = 1) -> list[float]:
    tasks = Counter(task for seed in range(20) for task, _ in plan(sizes, batch_size, sampling, seed=seed))
    return [tasks[task] / sum(tasks.values()) for task in range(len(sizes))]


def test_uniform_draws_all_tasks_alike_and_temperature_lies_between_size_and_uniform() -> None:
    sizes = [900, 90, 10]  # 20 epochs of 1,000 draws: standard deviations of 0.35 % at most
    assert shares(Uniform(), sizes) == pytest.approx([1 / 3] * 3, abs=0.015)
    assert shares(Temperature(1.0), sizes) == pytest.approx([0.9, 0.09, 0.01], abs=0.015)
    roots = np.sqrt(sizes) / np.sqrt(sizes).sum()
    assert shares(Temperature(2.0), sizes) == pytest.approx(roots.tolist(), abs=0.015)


def test_a_task_without_rows_is_never_drawn() -> None:
    for sampling in (Uniform(), Temperature(3.0), Ratio((1, 5, 1))):
        assert {task for task, _ in plan([40, 0, 40], 4, sampling)} == {0, 2}


def test_a_ratio_is_a_cycle_of_so_many_batches_of_each_task_and_zero_drops_one() -> None:
    tasks = [task for task, _ in plan([30, 30, 30], 5, Ratio((2, 0, 3)))]
    assert tasks == [0, 0, 2, 2, 2, 0, 0, 2, 2, 2, 0, 0]  # 12 batches, as the two tasks kept have
    assert [task for task, _ in plan([10, 100], 5, Ratio((1, 1)))] == [0, 1] * 11


@pytest.mark.parametrize("ratios", [(1, 1, 1), (20, 1, 0), (1, 20, 3), (3, 1, 2)], ids=str)
def test_a_ratio_that_holds_passes_reads_the_primary_once_per_epoch_whatever_it_is(ratios: tuple[int, ...]) -> None:
    batches = plan([23, 40, 40], 5, Ratio(ratios, hold="passes"))
    assert sorted(row for task, rows in batches if task == 0 for row in rows) == list(range(23))
    counts = np.bincount([task for task, _ in batches], minlength=3)
    assert counts[0] == 5
    for count, ratio in zip(counts[1:], ratios[1:]):
        assert abs(count - 5 * ratio / ratios[0]) <= 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ratio((0, 1)), r"sampling.ratios=\[0, 1\] gives the primary no batch"),
        (lambda: Ratio((0, 0)), r"gives the primary no batch; its ratio, the first, is 1 or more"),
        (lambda: Ratio(()), r"gives the primary no batch"),
        (
            lambda: Ratio((1, -1)),
            r"^ratios\[1\]=-1 does not fit; use a list \[a,b\], each a whole number of 0",
        ),
        (
            lambda: Ratio((1, 1.5)),
            r"^ratios\[1\]=1.5 does not fit; use a list \[a,b\], each a whole number of 0",
        ),  # type: ignore[arg-type]
        (lambda: plan([5, 5, 5], 5, Ratio((1, 2))), r"\[1, 2\] has 2 numbers for 3 tasks; give one"),
        (lambda: Temperature(0), r"^temperature=0 does not fit; use a number above 0$"),
        (lambda: Temperature(float("inf")), r"^temperature=inf does not fit; use a number above 0$"),
        (lambda: Uniform(length_bucket_batches=0), r"^length_bucket_batches=0 does not fit; use a whole number of 1"),
    ],
)
def test_bad_policies_are_named_with_what_to_use_instead(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


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
    assert padding(Proportional(length_bucket_batches=16)) < 0.25 * padding(Proportional(length_bucket_batches=1))


def test_each_task_comes_as_often_as_it_has_batches_and_is_spread_over_the_epoch() -> None:
    tasks = [task for task, _ in plan([800, 200], 10)]
    assert Counter(tasks) == {0: 80, 1: 20}
    first_halves = [sum(task for task, _ in plan([800, 200], 10, seed=seed)[:50]) for seed in range(40)]
    # 10 of the 20 batches are expected in the first half, with a standard deviation of 2 (hypergeometric)
    assert 9 < np.mean(first_halves) < 11
    assert min(first_halves) > 0


def test_the_incomplete_batch_is_not_always_made_of_the_longest_rows() -> None:
    lengths = np.arange(1, 75)  # 74 rows in batches of 8: windows of 16, and of the last ten one batch of 2
    longer = 0
    for seed in range(60):
        batches = Proportional().epoch([lengths], 8, np.random.default_rng(seed))
        (short,) = (rows for _, rows in batches if len(rows) == 2)
        longer += lengths[short].mean() > 37.5
    assert 15 < longer < 45  # 30 are expected, with a standard deviation of 4


def test_a_small_task_is_not_cut_into_the_same_batches_at_every_epoch() -> None:
    lengths = [np.random.default_rng(0).integers(5, 90, size=500)]  # as many rows as the proxy takes of a task
    first, second = (Proportional().epoch(lengths, 32, np.random.default_rng(seed)) for seed in (1, 2))
    batch_of = np.empty(500, dtype=np.int64)
    for i, (_, rows) in enumerate(first):
        batch_of[rows] = i
    together = [(np.bincount(batch_of[rows]).max() - 1) / 31 for _, rows in second if len(rows) == 32]
    assert np.mean(together) < 0.4  # share of a batch that came together before; in one window it would be 0.9


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


def test_uniform_batches_are_as_many_as_asked_for_whatever_the_rows() -> None:
    batches = plan([3, 200], 8, UniformBatches(40))
    assert len(batches) == 80
    assert 25 <= sum(task == 0 for task, _ in batches) <= 55
    assert as_lists(batches) == as_lists(plan([3, 200], 8, UniformBatches(40)))
    assert len(plan([200], 8, UniformBatches(40))) == 40
