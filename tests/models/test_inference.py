"""A forward pass over many rows, sorted and batched inside, gives what row by row would, in the order asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.models import inference
from fastmtl.models.inference import Inference, forward_rows
from fastmtl.models.multitask import ProxyModel

EXACT = Inference(pad_id=0, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def model(tiny: Any, tiny_tasks: Any) -> ProxyModel:
    torch.manual_seed(0)
    return ProxyModel(tiny, tiny_tasks).eval()


def row_by_row(model: ProxyModel, rows: Any, places: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([model.task_logits(collate(rows, np.array([place]), 0)).numpy() for place in places])


@pytest.mark.parametrize("batch_tokens", [4096, 40, 1])
def test_batched_rows_equal_single_rows_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, model: ProxyModel, tiny_pool: Any, batch_tokens: int
) -> None:
    monkeypatch.setattr(inference, "BATCH_TOKENS", batch_tokens)
    rows = tiny_pool.split("single", "train")
    places = np.array([7, 0, 11, 3, 4, 2, 9])
    got = forward_rows(model.task_logits, rows, places, EXACT, "test")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, row_by_row(model, rows, places), atol=1e-5)


def test_every_batch_fits_into_the_token_limit(monkeypatch: pytest.MonkeyPatch, tiny_pool: Any) -> None:
    monkeypatch.setattr(inference, "BATCH_TOKENS", 40)
    shapes: list[tuple[int, int]] = []

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        shapes.append(tuple(batch["input_ids"].shape))  # type: ignore[arg-type]
        return batch["input_ids"][:, :1].float()

    rows = tiny_pool.split("single", "train")
    forward_rows(forward, rows, np.arange(12), EXACT, "test")
    assert sum(b for b, _ in shapes) == 12
    assert len(shapes) > 1
    assert all(b * width <= 40 for b, width in shapes)


def test_half_precision_is_used_when_asked_for_and_close(model: ProxyModel, tiny_pool: Any) -> None:
    rows, places = tiny_pool.split("single", "train"), np.arange(4)
    half = forward_rows(model.task_logits, rows, places, replace(EXACT, dtype=torch.bfloat16), "test")
    exact = row_by_row(model, rows, places)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1


def test_no_graph_is_kept(tiny_pool: Any) -> None:
    weight = torch.ones(1, requires_grad=True)
    inside: list[bool] = []

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        out = batch["input_ids"][:, :1] * weight
        inside.append(out.requires_grad)
        return out

    forward_rows(forward, tiny_pool.split("single", "train"), np.arange(3), EXACT, "test")
    assert inside == [False]
