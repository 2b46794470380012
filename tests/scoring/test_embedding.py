"""Similarity of features against slow, direct computations, on the generated sample and on GLUE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.scoring import embedding
from fastmtl.scoring.base import ScoringInputs
from fastmtl.scoring.embedding import Embedding
from tests.scoring.worlds import MINILM, TINY, auc, glue_world, inputs_of, precision, sample_world, scores_of


@pytest.fixture
def toy(tiny_pool: Any, tiny: Any) -> ScoringInputs:
    """Twelve rows a task; a few of the primary's are held out, and a few of the others are no candidates."""
    rows = {"single": np.array([0, 3, 4, 7, 11]), "score": np.array([2, 4, 9])}
    return inputs_of(tiny_pool, "pairs", np.array([1, 4, 5, 10]), rows, tiny.build().eval())


def unit_features(inputs: ScoringInputs, task: str, positions: np.ndarray) -> np.ndarray:
    """Row by row, padded to itself."""
    rows, model = inputs.pool.split(task, "train"), inputs.model
    assert model is not None
    with torch.inference_mode():
        x = np.stack([model(collate(rows, np.array([p]), 0))[0].double().numpy() for p in positions])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def turn_by_turn(cosines_MN: np.ndarray) -> list[int]:
    """Candidates in the order in which target rows take the best that is left."""
    left, chosen = set(range(cosines_MN.shape[1])), []
    while left:
        for cosines_N in cosines_MN:
            if left:
                best = max(left, key=lambda j: cosines_N[j])
                chosen.append(best)
                left.remove(best)
    return chosen


def test_centroid_is_the_cosine_to_the_mean_of_unit_features(toy: ScoringInputs, tmp_path: Path) -> None:
    scores, records = scores_of(Embedding("centroid"), toy, tmp_path)
    mean = unit_features(toy, "pairs", toy.target).mean(0)
    for task, rows in toy.rows.items():
        expected = unit_features(toy, task, rows) @ mean / np.linalg.norm(mean)
        np.testing.assert_allclose(scores[task], expected, atol=1e-5)
    assert records["examples"] == 4


def test_nearest_is_a_round_robin_over_target_rows(toy: ScoringInputs, tmp_path: Path) -> None:
    scores, records = scores_of(Embedding("nearest"), toy, tmp_path)
    candidates = np.concatenate([unit_features(toy, task, rows) for task, rows in toy.rows.items()])
    order = turn_by_turn(unit_features(toy, "pairs", toy.target) @ candidates.T)
    assert np.argsort(-np.concatenate(list(scores.values()))).tolist() == order
    assert sorted(np.concatenate(list(scores.values()))) == list(range(-7, 1))
    assert records["examples"] == 12
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["places.npy", "row_ids.npy"]


@pytest.mark.parametrize(("choosers", "n", "ahead"), [(1, 30, 4), (7, 200, 3), (40, 25, 512)])
def test_choosing_in_turn_is_exact_to_the_last_candidate(
    choosers: int, n: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "AHEAD", ahead)
    cosines = np.random.default_rng(n).normal(size=(choosers, n)) + np.linspace(0, 3, n)  # all like the same ones
    lists = np.argsort(-cosines, axis=1).astype(np.uint32)
    assert embedding._chosen_in_turn(lists).tolist() == turn_by_turn(cosines)


@pytest.mark.parametrize("method", ["centroid", "nearest"])
def test_blocks_and_shards_change_nothing(
    toy: ScoringInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    whole, _ = scores_of(Embedding(method), toy, tmp_path / "a")
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 2)
    cut, _ = scores_of(Embedding(method), toy, tmp_path / "b", shard=3)
    for task in toy.rows:
        np.testing.assert_allclose(whole[task], cut[task], atol=1e-5)
    assert Embedding(method).score(toy, tmp_path / "a", "single", np.empty(0, dtype=np.int64)).shape == (1, 0)


def test_the_order_of_tasks_decides_nothing_between_equal_rows(toy: ScoringInputs, tmp_path: Path) -> None:
    """The primary's task stands in for a copy of itself: each of its rows has a cosine of 1 to one target row."""
    rows = {"pairs": toy.target, **toy.rows}
    one, _ = scores_of(Embedding(), replace(toy, rows=rows), tmp_path / "a")
    other, _ = scores_of(Embedding(), replace(toy, rows=dict(reversed(rows.items()))), tmp_path / "b")
    assert all(np.array_equal(one[task], other[task]) for task in rows)
    assert sorted(one["pairs"]) == [-3, -2, -1, 0]


def test_target_rows_are_drawn_by_the_seed(toy: ScoringInputs, tmp_path: Path) -> None:
    scores, records = scores_of(Embedding("centroid", targets=1), toy, tmp_path)
    cosines = unit_features(toy, "pairs", toy.target) @ unit_features(toy, "single", toy.rows["single"]).T
    drawn = [i for i in range(4) if np.allclose(cosines[i], scores["single"], atol=1e-5)]
    assert len(drawn) == records["examples"] == 1
    seeds = [scores_of(Embedding("centroid", 1), replace(toy, seed=s), tmp_path / str(s))[0] for s in range(8)]
    assert len({float(each["single"][0]) for each in seeds}) > 1


def test_flops_are_counted_where_the_pass_is(toy: ScoringInputs, tmp_path: Path) -> None:
    def forward(task: str, rows: np.ndarray) -> float:
        return toy.model.forward_flops(toy.pool.split(task, "train").lengths[rows])  # type: ignore[union-attr]

    target, candidates = forward("pairs", toy.target), sum(forward(*each) for each in toy.rows.items())
    _, centroid = scores_of(Embedding("centroid"), toy, tmp_path / "a")
    _, nearest = scores_of(Embedding("nearest"), toy, tmp_path / "b")
    assert centroid["flops"] == target
    assert nearest["flops"] == pytest.approx(target + candidates + 2 * 4 * 8 * 96)  # cosines of 4 and 8 rows
    lengths = toy.pool.split("single", "train").lengths
    assert Embedding("centroid").flops(toy, lengths) == forward("single", np.arange(12))
    assert Embedding("nearest").flops(toy, lengths) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"method": "mean"}, "method='mean'.*use one of centroid, nearest"), ({"targets": 0}, "targets=0"),
     ({"targets": True}, "targets=True")],
)  # fmt: skip
def test_a_bad_option_is_told_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Embedding(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["centroid", "nearest"])
def test_relevant_rows_of_the_sample_rank_higher(tmp_path: Path, method: Any) -> None:
    inputs = sample_world(tmp_path, TINY.build().eval())
    scores, _ = scores_of(Embedding(method), inputs, tmp_path / "state")
    assert auc(inputs, scores) > (0.6 if method == "centroid" else 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["centroid", "nearest"])
def test_it_finds_sst2_among_glue(tmp_path: Path, root: Path, method: Any) -> None:
    """The 500 hidden rows are a fifth of the candidates."""
    inputs = glue_world(tmp_path, root, per_task=500, model=MINILM.build().eval())
    scores, _ = scores_of(Embedding(method), inputs, tmp_path / "state")
    assert precision(scores) > 0.7
