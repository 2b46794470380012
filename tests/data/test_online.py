"""Orders that learn on the way, over integers: the contract of every policy, and what it is rewarded for."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from fastmtl.data.batching.online import Exp3Sampling, Online, OnlineSampling, ThompsonSampling, Ucb1Sampling
from fastmtl.errors import UserError

POLICIES: list[OnlineSampling] = [
    ThompsonSampling(batches_per_round=3),
    ThompsonSampling(batches_per_round=1, decay=0.1, reward="not_worse_than_previous"),
    ThompsonSampling(batches_per_round=2, warmup_rounds=3),
    ThompsonSampling(batches_per_round=2, warmup_rounds=1, episode=0.2),
    Exp3Sampling(),
    Ucb1Sampling(),
    Ucb1Sampling(smoothing=None),
]
"""Every online policy; a new one is one more entry here."""
SIZES = [64, 33, 200]

by_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def online(policy: OnlineSampling, sizes: list[int] = SIZES, seed: int = 0) -> Online:
    lengths = [np.random.default_rng(t).integers(3, 90, size=n) for t, n in enumerate(sizes)]
    return Online(policy, lengths, 16, seed)


def value(task: int, i: int) -> float:
    """What the world answers: task 2 helps."""
    return np.sin(i) / 4 + (0.5 if task == 2 else -0.5)


def played(order: Online, epochs: range) -> list[list[tuple[int, list[int]]]]:
    """All steps as plain lists; at the end of each round the order is told a value."""
    steps = []
    for epoch in epochs:
        order.start(epoch)
        for i in range(len(order)):
            step = order[i]
            assert order[i] is step  # a micro-batch asks again
            steps.append([(task, rows.tolist()) for task, rows in step])
            if (i + 1) % order.sampling.batches_per_round == 0:
                order.tell(value(step[-1][0], i))
    return steps


@by_policy
@pytest.mark.parametrize("sizes", [SIZES, [1, 1, 1], [500, 2, 40]], ids=str)
def test_every_online_policy_keeps_the_contract(policy: OnlineSampling, sizes: list[int]) -> None:
    order = online(policy, sizes)
    steps = played(order, range(2))
    least = sum(-(-n // 16) for n in sizes)
    assert len(steps) == 2 * len(order)
    assert least <= len(order) < least + policy.batches_per_round
    assert len(order) % policy.batches_per_round == 0
    warm = policy.warmup_rounds if isinstance(policy, ThompsonSampling) else 0
    assert (len(order.history) + warm) * policy.batches_per_round == len(steps)
    for step in steps:
        assert len({task for task, _ in step}) == len(step)
        assert 1 <= sum(len(rows) for _, rows in step) <= 16
        for task, rows in step:
            assert len(set(rows)) == len(rows)
            assert set(rows) <= set(range(sizes[task]))


@by_policy
def test_the_order_is_a_function_of_seed_and_rewards(policy: OnlineSampling) -> None:
    steps = played(online(policy), range(2))
    assert steps == played(online(policy), range(2))
    assert steps != played(online(policy, seed=1), range(2))


@by_policy
def test_an_order_goes_on_at_the_start_of_an_epoch(policy: OnlineSampling) -> None:
    whole = online(policy)
    played(whole, range(2))
    third = played(whole, range(2, 3))
    first, second = online(policy), online(policy)
    played(first, range(2))
    second.restore(json.loads(json.dumps(first.state())))
    assert played(second, range(2, 3)) == third


@by_policy
def test_no_row_of_a_task_comes_again_before_all_others_came(policy: OnlineSampling) -> None:
    steps = played(online(policy), range(1))
    for task, size in enumerate(SIZES):
        times = Counter(row for step in steps for t, rows in step if t == task for row in rows)
        assert not times or max(times.values()) - min(times.get(row, 0) for row in range(size)) <= 1


def test_warm_up_rounds_draw_every_task_alike_and_reward_nobody() -> None:
    order = online(ThompsonSampling(batches_per_round=4, rounds=5, warmup_rounds=50), [100, 300, 600])
    steps = played(order, range(1))
    assert len(steps) == 4 * 55
    warm = Counter(step[0][0] for step in steps[:200])
    assert all(45 < warm[task] < 90 for task in range(3))
    assert len(order.history) == 5
    assert order.history[0]["reward"] is not None  # the warm-up left a value to compare with
    assert all(len({step[0][0] for step in steps[i : i + 4]}) == 1 for i in range(200, 220, 4))


@pytest.mark.parametrize(("warm", "first"), [(4, 4), (0, 1)])
def test_an_episode_ends_when_as_many_rows_were_seen_and_the_next_compares_with_its_start(
    warm: int, first: int
) -> None:
    policy = ThompsonSampling(
        batches_per_round=2, rounds=12, warmup_rounds=warm, episode=1.0, reward="not_worse_than_previous"
    )
    order = online(policy, [40, 60, 60])  # 160 rows are five rounds of two batches of 16
    assert order.episode == 5
    starts, ends = [], []
    for i in range(len(order)):
        order[i]
        if i % 2:
            order.tell(float(i))  # the model grows better with every step
            done = (i + 1) // 2
            starts += [done] * order.starts
            ends += [done] * order.ends
    assert starts == [first]
    assert ends == [done for done in (first + 5, first + 10, first + 15) if done <= warm + 12]
    order = online(policy, [40, 60, 60])
    values = iter([0.5] * first + [0.8, 0.7, 0.6, 0.9, 1.0, 0.6, 0.55])
    for i in range(2 * (first + 7)):
        order[i]
        if i % 2:
            order.tell(next(values))
    rewards = [one["reward"] for one in order.history][-7:]
    assert rewards == [1, 0, 0, 1, 1, 1, 0]  # the last but one beats the start, not the episode before


def test_thompson_keeps_to_one_task_a_round_and_all_tasks_are_arms() -> None:
    order = online(ThompsonSampling(batches_per_round=5, rounds=60))
    steps = played(order, range(1))
    assert len(steps) == 300
    tasks = [[task for task, _ in step] for step in steps]
    assert all(len(step) == 1 for step in tasks)
    assert all(len({task for (task,) in tasks[i : i + 5]}) == 1 for i in range(0, 300, 5))
    assert {task for (task,) in tasks} == {0, 1, 2}
    assert [entry["arm"] for entry in order.history] == [tasks[i][0] for i in range(0, 300, 5)]
    assert order.history[0]["reward"] is None  # nothing to compare with
    assert np.shape(order.history[-1]["alpha"]) == (3,)


@pytest.mark.parametrize("policy", [Exp3Sampling(), Ucb1Sampling()], ids=repr)
def test_gradient_rewarded_orders_pair_the_primary_with_the_auxiliary_task_that_pays(policy: OnlineSampling) -> None:
    order = online(policy, [64, 400, 400, 400])
    steps = played(order, range(12))
    assert all(step[0][0] == 0 and step[1][0] != 0 for step in steps)
    assert all(len(step) == 2 for step in steps)
    chosen = Counter(step[1][0] for step in steps[len(steps) // 2 :])
    assert chosen.most_common(1)[0][0] == 2


@pytest.mark.parametrize("batch_size", [2, 7, 16])
def test_a_step_of_two_tasks_has_the_whole_batch(batch_size: int) -> None:
    order = Online(Exp3Sampling(), [np.full(n, 9) for n in (400, 400, 400)], batch_size, seed=0)
    (_, primary), (_, auxiliary) = order[0]
    assert (len(primary), len(auxiliary)) == (batch_size - batch_size // 2, batch_size // 2)


def test_steps_must_be_asked_for_in_order() -> None:
    with pytest.raises(AssertionError, match="no other steps than the next"):
        online(Exp3Sampling())[3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThompsonSampling(rounds=0), r"^rounds=0 does not fit; use a whole number of 1 or more or null$"),
        (lambda: ThompsonSampling(batches_per_round=1.5), r"^batches_per_round=1.5 does not fit; use a whole number"),  # type: ignore[arg-type]
        (lambda: ThompsonSampling(validation_rows=0), r"^validation_rows=0 does not fit"),
        (
            lambda: ThompsonSampling(warmup_rounds=-1),
            r"^warmup_rounds=-1 does not fit; use a whole number of 0 or more",
        ),
        (lambda: ThompsonSampling(episode=0), r"^episode=0 does not fit; use a number above 0 or null$"),
        (lambda: ThompsonSampling(metric="f1"), r"^metric='f1' does not fit; use one of headline, loss, probability$"),  # type: ignore[arg-type]
        (lambda: ThompsonSampling(reward="more"), r"^reward='more' does not fit; use one of graded, not_worse"),  # type: ignore[arg-type]
        (lambda: ThompsonSampling(decay=1.0), r"^decay=1.0 does not fit; use a number of 0 or more and below 1$"),
        (lambda: ThompsonSampling(prior=(0, 1)), r"^prior\[0\]=0 does not fit; use .*above 0$"),
        (lambda: ThompsonSampling(primary_prior=(1,)), r"^primary_prior=\(1,\) does not fit; use a list"),  # type: ignore[arg-type]
        (lambda: ThompsonSampling(length_bucket_batches=0), r"^length_bucket_batches=0 does not fit"),
        (lambda: Ucb1Sampling(smoothing=2.0), r"^smoothing=2.0 does not fit; use .*at most 1 or null$"),
        (lambda: online(Exp3Sampling(), [64]), r"needs an auxiliary task; use sampling=proportional"),
    ],
)
def test_bad_policies_are_named_with_what_to_use_instead(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
