"""Rows between stages: a mapping in a fixed order of tasks, and what its key is made of."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastmtl.data.rows import RowSet
from fastmtl.data.sources.generated import sample_tasks
from fastmtl.identity import digest, plain

TASKS = sample_tasks()
CHATS, MAILS, CALLS = TASKS[:3]
ROWS = {"mails": [0, 2, 5], "chats": [1, 3]}


def rows(given: dict[str, Any] = ROWS, split: str = "train", **origin: Any) -> RowSet:
    return RowSet.of(TASKS, given, split, origin)


def test_it_is_a_mapping_in_the_order_given() -> None:
    some = rows(budget=5)
    assert list(some) == ["mails", "chats"]
    assert {name: positions.tolist() for name, positions in some.items()} == ROWS
    assert all(positions.dtype == np.int64 for positions in some.positions)
    assert some.tasks == (MAILS, CHATS)
    assert (len(some), some.count) == (2, 5)
    assert "calls" not in some
    assert some.origin == {"budget": 5}
    with pytest.raises(KeyError):
        some["calls"]
    with pytest.raises(KeyError):
        rows({"nowhere": [0]})


def test_only_keeps_the_order_the_split_and_the_origin() -> None:
    some = rows({"calls": [1], "mails": [2], "chats": [3]}, "validation", budget=5).only({"chats", "calls"})
    assert list(some) == ["calls", "chats"]
    assert (some.split, some.origin) == ("validation", {"budget": 5})


@pytest.mark.parametrize(
    "other",
    [
        rows({"chats": [1, 3], "mails": [0, 2, 5]}),
        rows({"mails": [0, 2, 4], "chats": [1, 3]}),
        rows({"mails": [0, 2], "chats": [1, 3]}),
        rows({"mails": [0, 5, 2], "chats": [1, 3]}),
        rows({"mails": [0, 2, 5]}),
        rows({**ROWS, "calls": []}),
        rows(split="validation"),
        RowSet.of(sample_tasks(1), ROWS),
        RowSet.of([replace(CHATS, metrics=("f1_macro",)), MAILS], ROWS),
    ],
    ids=["order of tasks", "a row", "fewer rows", "order of rows", "a task less", "a task more", "split", "content",
         "the task itself"],
)  # fmt: skip
def test_the_key_changes_with_all_that_the_rows_are(other: RowSet) -> None:
    assert digest(other) != digest(rows())


def test_the_key_stays_whatever_the_origin_and_the_form_of_the_positions() -> None:
    assert digest(rows(budget=5, selection="random")) == digest(rows(budget=9)) == digest(rows())
    typed = {name: np.array(positions, dtype=np.int32) for name, positions in ROWS.items()}
    assert digest(rows(typed)) == digest(rows())
    assert digest({"rows": rows()}) == digest({"rows": rows().content})


def test_the_key_is_small_for_any_number_of_rows() -> None:
    few, many = (plain(rows({"mails": np.arange(n)})) for n in (1, 100_000))
    assert len(str(few)) == len(str(many))


def test_it_is_the_same_after_a_pickle() -> None:
    some = rows(budget=5)
    key = digest(some)
    for before in (some, rows(budget=5)):  # with and without what was computed from it
        copy = pickle.loads(pickle.dumps(before))
        assert list(copy) == list(some)
        assert all(np.array_equal(copy[name], some[name]) for name in some)
        assert (copy.split, copy.origin, copy.tasks, digest(copy)) == (some.split, some.origin, some.tasks, key)
