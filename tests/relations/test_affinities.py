"""Affinities against values worked out by hand, and the gradients of a real encoder against plain backward passes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastmtl.data.collate import collate
from fastmtl.data.pool import TokenRows
from fastmtl.errors import UserError
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.relations.affinities import Sample, centroids, confusion, fisher_embedding, gradient_cosine, taskemb
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import task_loss

A, B = (TaskSpec(name, "regression", ("text",)) for name in "ab")


class Plane(nn.Module):
    """A regression w x over the two token ids x of a row, w = (1, 0): what the weight's gradient is can be seen."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(2, 1)
        layer.weight.data, layer.bias.data = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
        self.layer = layer
        self.encoder = SimpleNamespace(layer_stack=lambda: [layer], spec=SimpleNamespace(name="plane"))

    def forward(self, batch: dict[str, torch.Tensor], task: str) -> torch.Tensor:
        return self.layer(batch["input_ids"].float())


def sample(task: TaskSpec, points: list[tuple[int, int]], labels: list[float]) -> Sample:
    n = len(points)
    ids, offsets = np.array(points, dtype=np.uint16).ravel(), 2 * np.arange(n + 1)
    second, known = np.full(n, 2, dtype=np.uint16), np.array(labels, dtype=np.float32)
    return Sample(task, TokenRows(ids, offsets, second, known, Path(), "train"), np.arange(n))


def test_confusion_is_the_mean_score_over_the_other_tasks_rows_that_have_one() -> None:
    scores = np.array([[0, 2, np.nan, 5, 7], [1, 3, np.nan, 4, 0]], dtype=np.float32)
    found = confusion(scores, np.array([0, 0, 0, 1, 1]), ["a", "b"])
    assert found.loc["a", "b"] == 6
    assert found.loc["b", "a"] == 2
    assert (found.index.name, found.columns.name) == ("main", "aux")
    scores[:, 3:] = np.nan
    with pytest.raises(UserError, match="no row of task 'b' has a score"):
        confusion(scores, np.array([0, 0, 0, 1, 1]), ["a", "b"])


def test_centroids_are_compared_by_cosine() -> None:
    features = {"a": np.array([[1.0, 0], [3, 0]]), "b": np.array([[3.0, 4]]), "c": np.array([[-1.0, 1], [1, 1]])}
    found = centroids({name: rows.astype(np.float32) for name, rows in features.items()})
    assert found.loc["a"].tolist() == pytest.approx([1, 0.6, 0])
    assert found.loc["b", "c"] == pytest.approx(0.8)
    np.testing.assert_array_equal(found, found.T)
    with pytest.raises(UserError, match="task 'd' has length 0"):
        centroids({**features, "d": np.array([[1.0, 1], [-1, -1]])})


def test_fisher_squares_the_gradient_of_each_row() -> None:
    # d/dw of (w x - y)^2 is 2 (w x - y) x: -4 (1, 2) and 4 (1, 2), whose mean would be 0
    found = fisher_embedding(Plane().eval(), sample(A, [(1, 2), (1, 2)], [3, -1]))
    assert {name: value.tolist() for name, value in found.items()} == {"0.weight": [[16, 64]]}  # and no bias


def test_taskemb_is_the_mean_cosine_over_matrices() -> None:
    first = {"low": np.array([[3.0, 4]]), "high": np.array([[100.0, 0]])}
    second = {"low": np.array([[4.0, 3]]), "high": np.array([[0.0, 1]])}
    assert taskemb({"a": first, "b": second}).loc["a", "b"] == pytest.approx((0.96 + 0) / 2)
    with pytest.raises(UserError, match="task 'b' has length 0"):
        taskemb({"a": first, "b": {**second, "high": np.zeros((1, 2))}})


def test_gradient_cosine_is_that_of_the_mean_gradients() -> None:
    # a: 2 (1 - 0) (1, 0) and 2 (1 - 3) (1, 4), mean (-1, -8); b: 2 (2 - 1) (2, 0) = (4, 0)
    mine, other = sample(A, [(1, 0), (1, 4)], [0, 3]), sample(B, [(2, 0)], [1])
    found = gradient_cosine(Plane().eval(), [mine, other], pad_id=0)
    assert found.loc["a", "b"] == pytest.approx(-1 / 65**0.5)
    np.testing.assert_array_equal(found, found.T)
    assert np.diag(found) == pytest.approx([1, 1])


def test_an_encoders_gradients_are_those_of_plain_backward_passes(tiny: Any, tiny_tasks: Any, tiny_pool: Any) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(tiny, tiny_tasks).eval()
    places = np.array([7, 0, 4])
    samples = [Sample(task, tiny_pool.split(task.name, "train"), places) for task in tiny_tasks]
    means, squares = [], []
    for one in samples:
        batch = collate(one.rows, places, pad_id=0)  # padded, where a row alone is not
        logits, layers = model(batch, one.task.name), [model.encoder.layer_stack()[i] for i in (0, 1)]
        named = [(f"{i}.{n}", w) for i, layer in enumerate(layers) for n, w in layer.named_parameters() if w.ndim > 1]
        losses = [task_loss(logits[[i]], batch["labels"][[i]], one.task) for i in range(3)]
        gradients = [torch.autograd.grad(loss, [w for _, w in named], retain_graph=True) for loss in losses]
        means.append(torch.cat([torch.stack(parts).mean(0).ravel() for parts in zip(*gradients)]))
        squares.append({n: torch.stack(p).square().mean(0).numpy() for (n, _), p in zip(named, zip(*gradients))})
    embeddings = [fisher_embedding(model, one) for one in samples]
    for found, wanted in zip(embeddings, squares):
        assert found.keys() == wanted.keys()
        assert len(found) == 12
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4 * value.max())
    found = gradient_cosine(model, samples, pad_id=0)
    assert found.loc["pairs", "score"] == pytest.approx(float(torch.cosine_similarity(means[0], means[2], 0)), abs=1e-4)
    near = taskemb({one.task.name: value for one, value in zip(samples, embeddings)})
    assert ((near > 0) & (near < 1 + 1e-9)).all(axis=None)


def test_rows_that_cannot_be_used_are_said_in_one_line() -> None:
    with pytest.raises(UserError, match="'a' has rows without labels"):
        sample(A, [(1, 2)], [np.nan])
    with pytest.raises(UserError, match="'a' has no rows"):
        Sample(A, sample(A, [(1, 2)], [0]).rows, np.array([], dtype=int))
    frozen = Plane().eval().requires_grad_(False)
    with pytest.raises(UserError, match="'plane' has no layers with trained weights"):
        fisher_embedding(frozen, sample(A, [(1, 2)], [0]))
