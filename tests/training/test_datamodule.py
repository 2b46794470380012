"""The held-out rows as several ranks get them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.batching.planned import Proportional
from fastmtl.data.collate import collate
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.training import datamodule
from fastmtl.training.config import FitConfig
from fastmtl.training.datamodule import TaskData
from fastmtl.training.modules import MultiTaskModule
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


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # of a rank alone; together there is always a row
@pytest.mark.parametrize(("place", "measured"), [(1, {"accuracy", "loss", "probability"}), (2, {"pearson", "loss"})])
def test_a_rank_that_only_repeats_a_row_reduces_the_values_that_the_others_do(
    tiny: Any, tiny_tasks: Any, tiny_pool: Any, monkeypatch: pytest.MonkeyPatch, place: int, measured: set[str]
) -> None:
    """Else the others would wait for it."""
    task, named = tiny_tasks[place], []
    for repeats in (False, True):
        module = MultiTaskModule(MultiTaskModel(tiny, tiny_tasks), tiny_tasks, FitConfig(learning_rate=1e-3), 1, task)
        monkeypatch.setattr(module, "log_dict", lambda values: named.append(set(values)))
        batch = {**collate(tiny_pool.split(task.name, "train"), np.arange(4), 0), "repeats": repeats}
        with torch.no_grad():
            module.validation_step([batch], 0)
            module.on_validation_epoch_end()
    assert named == [{f"choose/{name}" for name in measured}] * 2
