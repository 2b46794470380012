"""The contract of every selector, what is particular to each, and what a budget may be."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fastmtl.errors import UserError
from fastmtl.selection import candidates as ranking
from fastmtl.selection.base import PoolExhausted, Selector, check_budget, rows_wanted
from fastmtl.selection.candidates import Candidates, top_k
from fastmtl.selection.rows import Full, MatchedRandom, NoAuxiliary, Random, TopK
from fastmtl.selection.tasks import BestTasks, PickedTasks

SELECTORS: list[Selector] = [TopK(), Random(), MatchedRandom(), Full(), NoAuxiliary()]
"""A new selector is one more entry here."""
TASKS = ("red", "green", "blue")


def candidates(n: int = 30, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    row_ids = np.sort(rng.choice(1000, size=n, replace=False))
    return Candidates(row_ids, rng.integers(0, 3, size=n), rng.normal(size=n).astype(np.float32))


def picked(selector: Selector, candidates: Candidates, budget: int, seed: int = 0) -> np.ndarray:
    """As the stage asks: first how many rows, then which."""
    return selector.select(candidates, selector.size(candidates, budget, rng(seed)), rng(seed))


def expected_size(selector: Selector, k: int, n: int) -> int:
    return k if selector.uses_budget else (0 if isinstance(selector, NoAuxiliary) else n)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


by_name = pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: type(s).__name__)


@by_name
@pytest.mark.parametrize("k", [1, 7, 30])
def test_exactly_k_valid_positions_without_repeats(selector: Selector, k: int) -> None:
    picks = picked(selector, candidates(), k)
    assert picks.shape == (expected_size(selector, k, 30),)
    assert picks.dtype.kind == "i"
    assert len(set(picks.tolist())) == len(picks)
    assert set(picks.tolist()) <= set(range(30))


@by_name
def test_the_same_generator_gives_the_same_rows(selector: Selector) -> None:
    first, again = (picked(selector, candidates(), 9, 4).tolist() for _ in range(2))
    assert first == again


@by_name
def test_the_inputs_are_left_as_they_were(selector: Selector) -> None:
    given, untouched = candidates(), candidates()
    for array in (given.row_ids, given.task_ids, given.scores):
        assert array is not None
        array.flags.writeable = False
    picked(selector, given, 9)
    for name in ("row_ids", "task_ids", "scores"):
        np.testing.assert_array_equal(getattr(given, name), getattr(untouched, name))


@pytest.mark.parametrize("selector", [s for s in SELECTORS if "scores" not in s.needs], ids=lambda s: type(s).__name__)
def test_a_selector_that_needs_no_scores_does_without(selector: Selector) -> None:
    full = candidates()
    without = Candidates(full.row_ids, full.task_ids)
    assert len(picked(selector, without, 9)) == expected_size(selector, 9, 30)


@by_name
def test_no_candidates_are_no_rows(selector: Selector) -> None:
    empty = Candidates(np.arange(0), np.arange(0), np.empty(0, dtype=np.float32))
    assert len(selector.select(empty, 0, rng())) == 0


def test_top_k_takes_the_best_in_one_ranking_over_all_tasks_best_first() -> None:
    toy = Candidates(np.array([10, 11, 12, 13, 14]), np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.3, 0.7, 0.2]))
    assert toy.row_ids[TopK().select(toy, 3, rng())].tolist() == [11, 13, 12]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [0, 1, 20, 299, 300, 400])
@pytest.mark.parametrize("values", [3, 1000])
def test_streaming_over_blocks_is_a_full_sort(block: int, k: int, values: int) -> None:
    generator = rng(block)
    row_ids = generator.permutation(10_000)[:300]
    scores = generator.integers(values, size=300).astype(np.float32)  # three values: nearly all rows are tied
    blocks = ((row_ids[i : i + block], scores[i : i + block]) for i in range(0, 300, block))
    whole = top_k([(row_ids, scores)], 300, salt=5)
    assert np.array_equal(np.sort(scores)[::-1], scores[whole])
    assert top_k(blocks, k, salt=5).tolist() == whole[:k].tolist()


def test_no_more_rows_are_kept_than_two_times_k_and_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    cut = ranking._best

    def watched(row_ids: np.ndarray, *rest: Any) -> np.ndarray:
        nonlocal most
        most = max(most, len(row_ids))
        return cut(row_ids, *rest)

    monkeypatch.setattr(ranking, "_best", watched)
    scores = np.arange(100_000, dtype=np.float32)  # ascending: every block beats all that was kept
    blocks = ((np.arange(i, i + 1000), scores[i : i + 1000]) for i in range(0, 100_000, 1000))
    assert top_k(blocks, 50, salt=0).tolist() == list(range(99_999, 99_949, -1))
    assert most <= 2 * 50 + 1000


def test_top_k_may_take_every_row_from_one_task() -> None:
    toy = Candidates(np.arange(4), np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert toy.task_ids[TopK().select(toy, 2, rng())].tolist() == [1, 1]


def test_tied_rows_are_chosen_by_row_id_and_seed_never_by_storage_order() -> None:
    row_ids = np.arange(100, 140)
    scores = np.where(row_ids < 110, 1.0, 0.5)  # ten clear winners, thirty ties for five places

    def chosen(order: np.ndarray, seed: int) -> list[int]:
        toy = Candidates(row_ids[order], np.zeros(40, dtype=np.int64), scores[order])
        return toy.row_ids[TopK().select(toy, 15, rng(seed))].tolist()

    stored = chosen(np.arange(40), 0)
    for i in range(5):
        assert chosen(rng(i).permutation(40), 0) == stored
    assert chosen(np.arange(40)[::-1], 0) == stored
    assert set(range(100, 110)) <= set(stored)


def test_ties_fall_differently_for_another_seed() -> None:
    toy = Candidates(np.arange(40), np.zeros(40, dtype=np.int64), np.zeros(40))
    assert len({tuple(sorted(TopK().select(toy, 5, rng(seed)))) for seed in range(8)}) > 4


def test_no_row_is_favoured_among_ties() -> None:
    toy = Candidates(np.arange(10), np.zeros(10, dtype=np.int64), np.zeros(10))
    times = Counter(int(row) for seed in range(400) for row in TopK().select(toy, 5, rng(seed)))
    # 400 draws of 5 of 10: each row is expected 200 times, with a standard deviation of 10
    assert all(150 < times[row] < 250 for row in range(10))


def test_matched_random_takes_as_many_rows_of_each_task_as_top_k() -> None:
    for seed in range(5):
        toy = candidates(60, seed)
        top = toy.task_ids[TopK().select(toy, 20, rng(seed))]
        matched = toy.task_ids[MatchedRandom().select(toy, 20, rng(seed))]
        assert Counter(matched.tolist()) == Counter(top.tolist())


def test_matched_random_draws_other_rows_than_the_best_ones() -> None:
    toy = Candidates(np.arange(100), np.zeros(100, dtype=np.int64), np.arange(100.0))
    chosen = set().union(*(MatchedRandom().select(toy, 10, rng(seed)).tolist() for seed in range(40)))
    # all 100 rows are as likely; a row is missed by all 40 draws of 10 with probability 0.9 ** 40 = 1.5 %
    assert len(chosen) > 85


def test_random_takes_every_candidate_equally_often() -> None:
    toy = Candidates(np.arange(20), np.zeros(20, dtype=np.int64))
    times = Counter(int(row) for seed in range(800) for row in Random().select(toy, 5, rng(seed)))
    # 800 draws of 5 of 20: each row is expected 200 times, with a standard deviation of 12.2
    assert all(145 < times[row] < 255 for row in range(20))


def test_full_takes_all_and_no_auxiliary_takes_none() -> None:
    assert sorted(picked(Full(), candidates(), 3).tolist()) == list(range(30))
    assert picked(NoAuxiliary(), candidates(), 3).tolist() == []


def test_a_row_without_a_score_is_never_ranked() -> None:
    toy = Candidates(np.arange(2), np.arange(2), np.array([1.0, np.nan]))
    with pytest.raises(AssertionError):
        TopK().select(toy, 1, rng())


@pytest.mark.parametrize(
    "budget", [0, -1, float("nan"), 1.5, 2.0, True, False, "x", "3", float("inf"), -float("inf"), -0.1, 0.0, None, [3]]
)
def test_a_budget_that_is_no_count_and_no_share_is_named(budget: Any) -> None:
    for check in (check_budget, lambda b: rows_wanted(b, 10)):
        with pytest.raises(UserError) as error:
            check(budget)
        assert f"budget={budget!r}" in str(error.value)
        assert "whole number" in str(error.value)


@pytest.mark.parametrize("budget", [1, 500, 0.001, 0.5, 1.0])
def test_a_good_budget_is_left_as_given(budget: int | float) -> None:
    assert check_budget(budget) == budget
    assert type(check_budget(budget)) is type(budget)


@pytest.mark.parametrize(
    ("budget", "n", "k"),
    [(1, 10, 1), (10, 10, 10), (1.0, 10, 10), (0.34, 10, 3), (0.36, 10, 4), (0.001, 10, 1), (0.5, 2000, 1000)],
)
def test_a_budget_is_a_count_or_the_nearest_share_but_at_least_one(budget: int | float, n: int, k: int) -> None:
    assert rows_wanted(budget, n) == k


@pytest.mark.parametrize(("budget", "candidates"), [(11, 10), (1_000_000, 999_999), (1, 0), (0.5, 0)])
def test_a_budget_above_the_candidates_is_refused_with_their_number(budget: int | float, candidates: int) -> None:
    with pytest.raises(PoolExhausted, match=f"budget={budget}.*{candidates} candidate"):
        rows_wanted(budget, candidates)


def test_an_exhausted_pool_is_an_error_for_the_user() -> None:
    assert issubclass(PoolExhausted, UserError)


def of_tasks(utilities: list[float]) -> Candidates:
    """Ten rows of each of three tasks."""
    scores = np.random.default_rng(3).normal(size=30).astype(np.float32)
    return Candidates(np.arange(30), np.repeat(np.arange(3), 10), scores, TASKS, np.array(utilities))


def tasks_of(selector: Selector, candidates: Candidates, k: int, seed: int = 0) -> set[str]:
    picks = picked(selector, candidates, k, seed)
    assert len(set(picks.tolist())) == len(picks)
    return {TASKS[t] for t in candidates.task_ids[picks]}


@pytest.mark.parametrize(
    ("selector", "utilities", "chosen"),
    [
        (BestTasks(top=1, threshold=None), [0.2, 0.9, 0.6], {"green"}),
        (BestTasks(top=1), [0.2, 0.9, 0.6], {"green", "blue"}),  # blue is above the threshold
        (BestTasks(top=2), [0.2, 0.4, 0.3], {"green", "blue"}),  # of which none is
        (BestTasks(top=0, threshold=0.5), [0.5, 0.51, 0.1], {"green"}),
        (BestTasks(top=0, threshold=0.99), [0.5, 0.51, 0.1], set()),
        (BestTasks(top=3, threshold=None), [0.5, 0.51, 0.1], set(TASKS)),
        (PickedTasks(("blue", "red")), [0.0, 0.0, 0.0], {"red", "blue"}),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
def test_rows_come_from_the_chosen_tasks_alone(selector: Selector, utilities: list[float], chosen: set[str]) -> None:
    assert tasks_of(selector, of_tasks(utilities), 30) == chosen
    assert len(picked(selector, of_tasks(utilities), 7)) == (7 if chosen else 0)
    assert len(picked(selector, of_tasks(utilities), 30)) == 10 * len(chosen)  # all there are


def test_rows_within_tasks_are_chosen_by_the_inner_selector() -> None:
    candidates = of_tasks([0.1, 0.8, 0.9])
    assert candidates.scores is not None
    best = picked(PickedTasks(("green", "blue"), rows=TopK()), candidates, 5)
    assert best.tolist() == (10 + np.argsort(-candidates.scores[10:])[:5]).tolist()
    assert len(picked(BestTasks(rows=Full()), candidates, 3)) == 20
    assert set(BestTasks(rows=TopK()).needs) == {"scores", "utilities"}
    assert not BestTasks(rows=Full()).uses_budget


def test_equal_utilities_are_not_decided_by_the_order_of_the_tasks() -> None:
    picked = [tasks_of(BestTasks(top=1, threshold=None), of_tasks([0.5, 0.5, 0.5]), 5, seed) for seed in range(30)]
    assert {name for one in picked for name in one} == set(TASKS)
