"""DSIR against counting by hand, on the generated sample and on GLUE."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmtl.errors import UserError
from fastmtl.scoring import ngram_importance
from fastmtl.scoring.base import ScoringInputs
from fastmtl.scoring.ngram_importance import NgramImportance
from fastmtl.scoring.ngram_importance import _gumbel as gumbel
from fastmtl.seeds import scrambled
from tests.scoring.worlds import auc, glue_world, inputs_of, precision, sample_world, scores_of


@pytest.fixture
def toy(tiny_pool: Any) -> ScoringInputs:
    """Twelve rows a task; a few of the primary's are held out, and a few of the others are no candidates."""
    rows = {"single": np.array([7, 0, 3, 11]), "score": np.array([2, 9, 4])}
    return inputs_of(tiny_pool, "pairs", np.array([1, 4, 5, 10]), rows)


def ngrams(inputs: ScoringInputs, task: str, position: int) -> list[tuple[int, ...]]:
    rows = inputs.pool.split(task, "train")
    ids = rows.ids[rows.offsets[position] : rows.offsets[position + 1]].tolist()
    return [(i,) for i in ids] + list(pairwise(ids))


def bucket(ngram: tuple[int, ...], buckets: int) -> int:
    """SplitMix64 in Python's own integers."""
    x = ngram[0] if len(ngram) == 1 else (ngram[0] + 1) << 32 | ngram[1]
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return ((x ^ x >> 31) >> 32) * buckets >> 32


def by_hand(inputs: ScoringInputs, scorer: NgramImportance) -> dict[str, list[float]]:
    """Row by row and n-gram by n-gram."""

    def shares(parts: dict[str, np.ndarray]) -> dict[int, float]:
        found = [bucket(g, scorer.buckets) for t, rows in parts.items() for p in rows for g in ngrams(inputs, t, p)]
        return {b: count / len(found) for b, count in Counter(found).items()}

    target, pool = shares({inputs.primary: inputs.target}), shares(dict(inputs.rows))

    def log_ratio(ngram: tuple[int, ...]) -> float:
        b = bucket(ngram, scorer.buckets)
        return float(np.log(target.get(b, 0) + scorer.smoothing) - np.log(pool.get(b, 0) + scorer.smoothing))

    take = np.mean if scorer.per_ngram else np.sum
    return {
        task: [float(take([log_ratio(g) for g in ngrams(inputs, task, p)])) for p in rows]
        for task, rows in inputs.rows.items()
    }


@pytest.mark.parametrize("per_ngram", [True, False])
@pytest.mark.parametrize("buckets", [10_000, 37])
def test_scores_are_log_ratios_of_bucket_shares(
    toy: ScoringInputs, tmp_path: Path, buckets: int, per_ngram: bool
) -> None:
    scorer = NgramImportance(buckets, per_ngram=per_ngram)
    scores, records = scores_of(scorer, toy, tmp_path)
    for task, expected in by_hand(toy, scorer).items():
        assert scores[task].dtype == np.float32
        np.testing.assert_allclose(scores[task], expected, rtol=1e-5)
    lengths = [toy.pool.split(t, "train").lengths[r].sum() for t, r in [("pairs", toy.target), *toy.rows.items()]]
    assert records == {"flops": 0.0, "examples": 11, "tokens": sum(lengths)}
    assert scorer.flops(toy, np.array([5, 8])) == 0


@pytest.mark.parametrize("options", [{}, {"per_ngram": False, "gumbel": True}])
def test_blocks_and_shards_change_nothing(
    toy: ScoringInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    scorer = NgramImportance(**options)
    whole, _ = scores_of(scorer, toy, tmp_path / "a")
    monkeypatch.setattr(ngram_importance, "BLOCK_TOKENS", 7)
    cut, _ = scores_of(scorer, toy, tmp_path / "b", shard=2)
    assert all(np.array_equal(whole[task], cut[task]) for task in toy.rows)
    assert scorer.score(toy, tmp_path / "a", "single", np.empty(0, dtype=np.int64)).shape == (1, 0)


def test_noise_belongs_to_row_and_seed(toy: ScoringInputs, tmp_path: Path) -> None:
    weights, _ = scores_of(NgramImportance(per_ngram=False), toy, tmp_path / "a")
    noisy, _ = scores_of(NgramImportance(per_ngram=False, gumbel=True), toy, tmp_path / "b")
    row_ids = toy.pool.starts[toy.pool.index("single")] + toy.rows["single"]
    np.testing.assert_allclose(noisy["single"] - weights["single"], gumbel(row_ids, toy.seed), atol=1e-4)
    assert not np.allclose(gumbel(row_ids, 1), gumbel(row_ids, 2))


def test_the_best_with_noise_are_drawn_in_proportion_to_their_weights() -> None:
    """The first of three rows of weights 1, 2 and 5; standard errors are below 0.0025."""
    seeds = 40_000
    noise = np.stack([gumbel(np.arange(seeds) * 3 + row, salt=0) for row in range(3)])
    best = (np.log([[1], [2], [5]]) + noise).argmax(0)
    np.testing.assert_allclose(np.bincount(best) / seeds, [1 / 8, 2 / 8, 5 / 8], atol=0.01)


def test_hashes_are_those_of_splitmix64() -> None:
    """The generator's first values from seed 0, as published with its reference code."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    step = 0x9E3779B97F4A7C15  # of the generator's state
    assert [int(scrambled(np.array([0]), salt=i * step % 2**64)[0]) for i in (1, 2, 3)] == first
    assert len(np.unique(scrambled(np.arange(100_000)))) == 100_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"buckets": 0}, "buckets=0"),
        ({"buckets": 1.5}, r"buckets=1\.5"),
        ({"smoothing": 0}, "smoothing=0"),
        ({"smoothing": float("nan")}, "smoothing=nan"),
        ({"per_ngram": "maybe"}, "per_ngram='maybe'.*true or false"),
        ({"gumbel": True}, "per_ngram=false"),
    ],
)
def test_a_bad_option_is_told_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        NgramImportance(**options)
    assert "\n" not in str(error.value)


def test_relevant_rows_of_the_sample_rank_higher(tmp_path: Path) -> None:
    inputs = sample_world(tmp_path)
    scores, _ = scores_of(NgramImportance(), inputs, tmp_path / "state")
    assert auc(inputs, scores) > 0.9


def test_it_finds_sst2_among_glue(tmp_path: Path, root: Path) -> None:
    """500 hidden rows are 6 % of the candidates; the release's smoothing is made for far larger targets."""
    inputs = glue_world(tmp_path, root, per_task=2000)
    paper, _ = scores_of(NgramImportance(), inputs, tmp_path / "paper")
    smooth, _ = scores_of(NgramImportance(smoothing=1e-4), inputs, tmp_path / "smooth")
    assert precision(paper) > 0.15
    assert precision(smooth) > 0.4
