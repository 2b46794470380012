"""Which proxy reads which row in which shard."""

from __future__ import annotations

import numpy as np

from fastmtl.stages.scores import assign

ROWS = {"a": np.arange(10), "b": np.array([2, 3, 7])}


def as_lists(shards: list[tuple[str, np.ndarray, int]]) -> list[tuple[str, list[int], int]]:
    return [(task, places.tolist(), proxy) for task, places, proxy in shards]


def test_one_proxy_reads_every_row_but_those_it_was_trained_on() -> None:
    got = assign(ROWS, [{"a": np.array([0, 4]), "b": np.array([3])}], size=100)
    assert as_lists(got) == [("a", [1, 2, 3, 5, 6, 7, 8, 9], 0), ("b", [2, 7], 0)]


def test_of_two_proxies_each_reads_the_rows_of_the_other() -> None:
    got = assign(ROWS, [{"a": np.array([0, 4]), "b": np.array([3])}, {"a": np.array([1, 9]), "b": np.array([2])}], 100)
    assert as_lists(got) == [("a", [1, 2, 3, 5, 6, 7, 8, 9], 0), ("a", [0, 4], 1), ("b", [2, 7], 0), ("b", [3], 1)]


def test_a_task_without_training_rows_is_read_whole() -> None:
    assert as_lists(assign(ROWS, [{"a": np.arange(10)}], 100)) == [("b", [2, 3, 7], 0)]


def test_shards_have_the_size_asked_for_and_keep_every_row() -> None:
    got = assign(ROWS, [{}], size=4)
    assert [len(places) for _, places, _ in got] == [4, 4, 2, 3]
    assert np.concatenate([places for task, places, _ in got if task == "a"]).tolist() == list(range(10))
