"""Rows as padded tensors, checked cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.data.pool import TokenRows
from fastmtl.tasks import TaskSpec


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, make_pool: Any, toy_source: Any) -> TokenRows:
    task = TaskSpec("t", "regression", ("a", "b"), splits={"train": "train"})
    columns = {"a": ["11 12", "13", "14"], "b": ["21", "22 23 24", "25"], "label": ["0.5", "-2", "3"]}
    source = toy_source((task,), {"t": {"train": columns}})
    return make_pool(tmp_path_factory.mktemp("collate"), source).split("t", "train")


def test_rows_are_padded_to_the_longest_of_the_batch_in_the_order_asked_for(rows: TokenRows) -> None:
    batch = collate(rows, np.array([1, 0, 2]), pad_id=9)
    assert batch["input_ids"].tolist() == [[13, 22, 23, 24], [11, 12, 21, 9], [14, 25, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert batch["labels"].tolist() == [-2.0, 0.5, 3.0]


def test_a_batch_of_short_rows_is_not_padded_to_the_longest_row_of_the_task(rows: TokenRows) -> None:
    assert collate(rows, np.array([2]), pad_id=0)["input_ids"].tolist() == [[14, 25]]


def test_tensors_have_the_types_that_models_and_losses_take(rows: TokenRows) -> None:
    batch = collate(rows, np.array([0, 1]), pad_id=0)
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64, "attention_mask": torch.int64, "token_type_ids": torch.int64, "labels": torch.float32,
    }  # fmt: skip


def test_a_row_may_occur_twice(rows: TokenRows) -> None:
    assert collate(rows, np.array([2, 2]), pad_id=0)["labels"].tolist() == [3.0, 3.0]


def test_a_single_text_has_no_second_segment(tmp_path: Path, make_pool: Any, toy_source: Any) -> None:
    task = TaskSpec("t", "regression", ("a",), splits={"train": "train"})
    pool = make_pool(tmp_path, toy_source((task,), {"t": {"train": {"a": ["1 2 3", "4"], "label": ["0", "1"]}}}))
    assert collate(pool.split("t", "train"), np.array([0, 1]), 0)["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]
