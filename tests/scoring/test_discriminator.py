"""Who scores which row, and what the scores are. A proxy here is random: only its arithmetic matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.data.pool import TaskPool
from fastmtl.errors import UserError
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import ProxyModel
from fastmtl.scoring.discriminator import Discriminator
from fastmtl.scoring.scorer import Proxy

HOW = Inference(pad_id=0, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def proxies(tiny: Any, tiny_tasks: Any, tiny_pool: TaskPool) -> list[Proxy]:
    made = []
    for fold in (0, 1):
        torch.manual_seed(fold)
        made.append(Proxy(ProxyModel(tiny, tiny_tasks).eval(), tiny_pool.sample(3, seed=0, fold=fold)))
    return made


@pytest.fixture(scope="module")
def scored(tiny_pool: TaskPool, proxies: list[Proxy]) -> dict[tuple[str, int], np.ndarray]:
    """(T, N) by loss and number of proxies."""
    return {
        (loss, n): Discriminator(loss).score(tiny_pool, proxies[:n], HOW)  # type: ignore[arg-type]
        for loss in ("ce", "bce")
        for n in (1, 2)
    }


def by_hand(proxy: Proxy, pool: TaskPool, row_id: int) -> np.ndarray:
    """(T,) logits of one row on its own."""
    name = pool.names[int(pool.task_of(np.array([row_id]))[0])]
    batch = collate(pool.split(name, "train"), pool.local(np.array([row_id])), 0)
    with torch.inference_mode():
        return proxy.model.task_logits(batch)[0].numpy()


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_one_proxy_scores_every_row_but_those_it_was_trained_on(scored: Any, proxies: list[Proxy], loss: str) -> None:
    scores_TN = scored[loss, 1]
    assert scores_TN.shape == (3, 36)
    assert scores_TN.dtype == np.float32
    missing = np.isnan(scores_TN)
    assert (missing == missing[0]).all()
    assert np.flatnonzero(missing[0]).tolist() == proxies[0].trained_on.tolist()


def test_of_two_proxies_each_scores_the_rows_of_the_other(
    scored: Any, tiny_pool: TaskPool, proxies: list[Proxy]
) -> None:
    scores_TN = scored["bce", 2]
    assert not np.isnan(scores_TN).any()
    first, second = proxies
    for row in first.trained_on[[0, 4, 8]]:
        np.testing.assert_allclose(scores_TN[:, row], by_hand(second, tiny_pool, row), atol=1e-5)
    for row in second.trained_on[[0, 4, 8]]:
        np.testing.assert_allclose(scores_TN[:, row], by_hand(first, tiny_pool, row), atol=1e-5)


def test_a_column_holds_the_scores_of_its_own_row(scored: Any, tiny_pool: TaskPool, proxies: list[Proxy]) -> None:
    scores_TN = scored["bce", 1]
    for row in tiny_pool.candidates("pairs", proxies[0].trained_on)[::5]:
        np.testing.assert_allclose(scores_TN[:, row], by_hand(proxies[0], tiny_pool, row), atol=1e-5)


def test_softmax_scores_are_log_probabilities_over_the_tasks(scored: Any) -> None:
    scores_TN = scored["ce", 2]
    np.testing.assert_allclose(np.logaddexp.reduce(scores_TN, axis=0), 0, atol=1e-5)
    assert (scores_TN < 0).all()


def test_sigmoid_scores_are_the_raw_logits_and_do_not_saturate(scored: Any) -> None:
    ce, bce = scored["ce", 2], scored["bce", 2]
    np.testing.assert_allclose(bce - np.logaddexp.reduce(bce, axis=0), ce, atol=1e-5)
    assert not np.allclose(bce, ce)


def test_rows_outside_a_cut_are_not_scored(tiny_pool: TaskPool, proxies: list[Proxy]) -> None:
    small = TaskPool(tiny_pool.folders, {"single": 4})
    scores_TN = Discriminator("ce").score(small, [Proxy(proxies[0].model, np.arange(0))], HOW)
    scored = np.flatnonzero(~np.isnan(scores_TN[0]))
    assert scored.tolist() == [*range(12), *small.rows_of("single"), *range(24, 36)]


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(UserError, match=r"'hinge'.*ce or bce"):
        Discriminator("hinge")  # type: ignore[arg-type]


def test_it_asks_for_a_proxy_with_its_own_loss() -> None:
    assert (Discriminator("ce").discriminator, Discriminator("bce").discriminator) == ("ce", "bce")
