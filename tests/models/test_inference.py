"""A forward pass over many rows, sorted and batched inside, gives what row by row would, in the order asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.models import inference
from fastmtl.models.inference import Inference, forward_rows, forward_tokens
from fastmtl.models.multitask import MultiTaskModel, ProxyModel
from fastmtl.tasks.kinds import HIDDEN_LABEL

EXACT = Inference(pad_id=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def model(tiny: Any, tiny_tasks: Any) -> ProxyModel:
    torch.manual_seed(0)
    return ProxyModel(tiny, tiny_tasks).eval()


def row_by_row(model: ProxyModel, rows: Any, places: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([model.task_logits(collate(rows, np.array([place]), 0)).numpy() for place in places])


@pytest.mark.parametrize("batch_tokens", [4096, 40, 1])
@pytest.mark.parametrize("pack", [True, False])
def test_batched_rows_equal_single_rows_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, model: ProxyModel, tiny_pool: Any, batch_tokens: int, pack: bool
) -> None:
    monkeypatch.setattr(inference, "BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr(inference, "PACKED_TOKENS", {"cpu": batch_tokens})
    rows = tiny_pool.split("single", "train")
    places = np.array([7, 0, 11, 3, 4, 2, 9])
    got = forward_rows(model.encoder, model.discriminator, rows, places, replace(EXACT, pack=pack), "test")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, row_by_row(model, rows, places), atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [4096, 40, 1])
def test_batched_words_equal_those_of_single_rows_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny: Any, tagged_pool: Any, batch_tokens: int
) -> None:
    monkeypatch.setattr(inference, "BATCH_TOKENS", batch_tokens)
    model = MultiTaskModel(tiny, tagged_pool.tasks).eval()
    rows, places = tagged_pool.split("things", "train"), np.array([7, 0, 11, 3, 4])
    got = forward_tokens(model.encoder, model.heads["things"], rows, places, EXACT, "test")
    assert [len(one) for one in got] == rows.words[places].tolist()
    for place, values in zip(places, got):
        batch = collate(rows, np.array([place]), 0)
        with torch.inference_mode():
            alone = model(batch, "things")[batch["labels"] != HIDDEN_LABEL]
        np.testing.assert_allclose(values, alone.numpy(), atol=1e-5)


def test_every_padded_batch_fits_into_the_token_limit(
    monkeypatch: pytest.MonkeyPatch, model: ProxyModel, tiny_pool: Any
) -> None:
    monkeypatch.setattr(inference, "BATCH_TOKENS", 40)
    shapes: list[tuple[int, int]] = []
    hook = model.encoder.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)))
    rows = tiny_pool.split("single", "train")
    forward_rows(model.encoder, model.discriminator, rows, np.arange(12), replace(EXACT, pack=False), "test")
    hook.remove()
    assert sum(b for b, _ in shapes) == 12
    assert len(shapes) > 1
    assert all(b * width <= 40 for b, width in shapes)


@pytest.mark.parametrize("pack", [True, False])
def test_half_precision_is_used_when_asked_for_and_close(model: ProxyModel, tiny_pool: Any, pack: bool) -> None:
    rows, places = tiny_pool.split("single", "train"), np.arange(4)
    how = replace(EXACT, precision="bf16", pack=pack)
    half = forward_rows(model.encoder, model.discriminator, rows, places, how, "test")
    exact = row_by_row(model, rows, places)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1


def test_no_graph_is_kept(model: ProxyModel, tiny_pool: Any) -> None:
    inside: list[bool] = []
    hook = model.discriminator.register_forward_hook(lambda _, __, out: inside.append(out.requires_grad))
    forward_rows(model.encoder, model.discriminator, tiny_pool.split("single", "train"), np.arange(3), EXACT, "test")
    hook.remove()
    assert inside == [False]
