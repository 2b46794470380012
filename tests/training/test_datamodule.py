"""The held-out rows as several ranks get them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastmtl.data.batching.planned import Proportional
from fastmtl.training import datamodule
from fastmtl.training.datamodule import TaskData
from tests.helpers.toy import row_sets


@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_every_held_out_row_counts_once_and_all_ranks_have_as_many_batches(
    tiny_pool: Any, monkeypatch: pytest.MonkeyPatch, rows: int, world: int
) -> None:
    monkeypatch.setattr(datamodule, "BATCH_ROWS", 2)
    places = np.arange(12)[-rows:]
    sets = row_sets(tiny_pool, rows={"score": np.arange(12)}, evaluated={"score": places})
    data = TaskData(tiny_pool, sampling=Proportional(), batch_size=4, seed=0, pad_id=0, **sets)
    ranks = []
    for rank in range(world):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, accelerator=None)  # type: ignore[assignment]
        ranks.append([batch for (batch,) in data.val_dataloader()])  # type: ignore[union-attr]
    assert len({len(batches) for batches in ranks}) == 1
    labels = [float(x) for batches in ranks for batch in batches if not batch["repeats"] for x in batch["labels"]]
    assert sorted(labels) == sorted(place / 4 for place in places)
