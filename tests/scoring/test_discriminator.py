"""What the scores of a discriminator are. The proxy here is random: only its arithmetic matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.data.pool import TaskPool
from fastmtl.errors import UserError
from fastmtl.models.multitask import ProxyModel
from fastmtl.scoring.discriminator import Discriminator
from tests.scoring.worlds import inputs_of


@pytest.fixture(scope="module")
def proxy(tiny: Any, tiny_tasks: Any) -> ProxyModel:
    torch.manual_seed(0)
    return ProxyModel(tiny, tiny_tasks).eval()


def scored(pool: TaskPool, proxy: ProxyModel, loss: Any, task: str = "single") -> np.ndarray:
    inputs = inputs_of(pool, "pairs", np.empty(0, np.int64), {}, proxy)
    return Discriminator(loss).score(inputs, None, task, np.array([8, 1, 5]))


def by_hand(proxy: ProxyModel, pool: TaskPool, task: str, place: int) -> np.ndarray:
    """(T,) logits of one row on its own."""
    with torch.inference_mode():
        return proxy.task_logits(collate(pool.split(task, "train"), np.array([place]), 0))[0].numpy()


@pytest.mark.parametrize("task", ["pairs", "single", "score"])
def test_a_column_holds_the_scores_of_its_own_row(tiny_pool: TaskPool, proxy: ProxyModel, task: str) -> None:
    scores_Tn = scored(tiny_pool, proxy, "bce", task)
    assert scores_Tn.shape == (3, 3)
    assert scores_Tn.dtype == np.float32
    for i, place in enumerate([8, 1, 5]):
        np.testing.assert_allclose(scores_Tn[:, i], by_hand(proxy, tiny_pool, task, place), atol=1e-5)


def test_softmax_scores_are_log_probabilities_over_the_tasks(tiny_pool: TaskPool, proxy: ProxyModel) -> None:
    scores_Tn = scored(tiny_pool, proxy, "ce")
    np.testing.assert_allclose(np.logaddexp.reduce(scores_Tn, axis=0), 0, atol=1e-5)
    assert (scores_Tn < 0).all()


def test_sigmoid_scores_are_the_raw_logits_and_do_not_saturate(tiny_pool: TaskPool, proxy: ProxyModel) -> None:
    ce, bce = scored(tiny_pool, proxy, "ce"), scored(tiny_pool, proxy, "bce")
    np.testing.assert_allclose(bce - np.logaddexp.reduce(bce, axis=0), ce, atol=1e-5)
    assert not np.allclose(bce, ce)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(UserError, match=r"loss='hinge'.*use one of ce, bce"):
        Discriminator("hinge")  # type: ignore[arg-type]


def test_it_asks_for_a_proxy_with_its_own_loss() -> None:
    assert (Discriminator("ce").loss, Discriminator("bce").loss) == ("ce", "bce")
    assert Discriminator.needs == "discriminator"
    assert not Discriminator.per_primary
