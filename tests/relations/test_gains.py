"""Relative gains of all ordered pairs, each symmetric model used for both directions."""

from __future__ import annotations

import numpy as np
import pytest
from pandas import DataFrame
from scipy import stats

from fastmtl.errors import UserError
from fastmtl.relations.gains import gains

ALONE = {("a", 0): 0.5, ("a", 1): 0.4, ("b", 0): 0.8, ("b", 1): 0.8, ("c", 0): 0.2, ("c", 1): 0.2}
TOGETHER = {("a", "b"): (0.6, 0.5), ("b", "a"): (0.4, 0.6), ("a", "c"): (0.5, 0.4), ("c", "a"): (0.2, 0.3),
            ("b", "c"): (0.8, 0.9), ("c", "b"): (0.1, 0.1)}  # fmt: skip


def frames(seeds: int = 2) -> tuple[DataFrame, DataFrame]:
    single = [(t, s, v) for (t, s), v in ALONE.items() if s < seeds]
    pairs = [(t, o, s, v) for (t, o), both in TOGETHER.items() for s, v in enumerate(both[:seeds])]
    return DataFrame(single, columns=["task", "seed", "score"]), DataFrame(
        pairs, columns=["task", "other", "seed", "score"]
    )


def test_gains_are_relative_paired_by_seed_and_have_students_interval() -> None:
    table = gains(*frames())
    assert list(table.index) == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
    assert table["gain"].tolist() == pytest.approx([22.5, 0, -37.5, 6.25, 25, -50])
    expected = stats.t.interval(0.95, 1, 22.5, stats.sem([20, 25]))
    assert table.loc[("a", "b"), ["low", "high"]].tolist() == pytest.approx(list(expected))
    assert (table["seeds"] == 2).all()


def test_points_are_differences_and_take_a_score_of_zero() -> None:
    single, pairs = frames()
    table = gains(single.assign(score=[0.5, 0.4, 0.8, 0.0, 0.2, 0.2]), pairs, unit="points")
    assert table["gain"].tolist() == pytest.approx([10, 0, 10, 45, 5, -10])


def test_one_seed_has_a_gain_and_no_interval() -> None:
    table = gains(*frames(seeds=1))
    assert table["gain"].tolist() == pytest.approx([20, 0, -50, 0, 0, -50])
    assert table[["low", "high"]].isna().all(axis=None)


def test_bad_input_is_said_in_one_line() -> None:
    single, pairs = frames()
    cases = [
        (single, pairs.iloc[:-1], "no score of 'c' trained with 'b', seed 1"),
        (single, pairs.assign(score=np.nan), "score of task a, other b, seed 0 is no number"),
        (single, pairs.iloc[[0, *range(len(pairs))]], "two scores of task a, other b, seed 0"),
        (single.assign(score=[0.5, 0.4, 0.8, 0, 0.2, 0.2]), pairs, "'b' alone scores 0 with seed 1"),
    ]
    for one, two, said in cases:
        with pytest.raises(UserError) as raised:
            gains(one, two)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
