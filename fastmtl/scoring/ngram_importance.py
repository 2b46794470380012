"""DSIR: a row is valued by how much likelier its n-grams are in the primary than in the pool; no model is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fastmtl.data.pool import TokenRows
from fastmtl.errors import UserError
from fastmtl.options import Count, Positive, options
from fastmtl.scoring.base import Needs, ScoringInputs
from fastmtl.seeds import scrambled

BLOCK_TOKENS = 1 << 17
"""Tokens looked at together: arrays of 1 MB, so that memory is flat and the processor's cache holds them."""
TABLE = "log_ratios.npy"


@options
class NgramImportance:
    """Importance weights of hashed uni- and bigrams of token ids, special ones too, where the paper takes words.

    Args:
        buckets: Into how many an n-gram's hash falls.
        smoothing: Added to the share of each bucket, in the primary and in the pool.
        per_ngram: Take the mean log-ratio over a row's n-grams; False: their sum, the paper's log importance weight.
        gumbel: Add Gumbel noise, so that the k best are k rows drawn without replacement in proportion to their
            weights. It is fixed by row id and seed.

    The defaults are those of the paper but for two. Its release smooths by 1e-8: with 500 rows of each of eight GLUE
    tasks as primary, and rows of the same task hidden among those of four others, 1e-4 found 38 % of them at a budget
    as large as their number, 1e-8 21 % (one seed each; the value was chosen on these tasks). Sums order rows by length:
    for SST-2 and 1e-8 scores and lengths correlate by -0.91 (Spearman), for means by -0.10.

    Source: Xie, Santurkar, Ma and Liang, "Data Selection for Language Models via Importance Resampling", NeurIPS 2023,
    arXiv 2302.03169; `hashed_ngram_dsir.py` of its release.
    """

    buckets: Annotated[Count, Field(lt=2**32)] = 10_000
    smoothing: Positive = 1e-4
    per_ngram: bool = True
    gumbel: bool = False

    needs: ClassVar[Needs] = "nothing"
    per_primary: ClassVar[bool] = True

    @property
    def uses_seed(self) -> bool:
        """Whether another seed gives other scores."""
        return self.gumbel

    def __post_init__(self) -> None:
        if self.gumbel and self.per_ngram:
            raise UserError("selection.scorer.gumbel=true draws by whole weights; set selection.scorer.per_ngram=false")

    def prepare(self, inputs: ScoringInputs, out: Path) -> dict[str, Any]:
        """Count the primary's and the pool's n-grams; see `fastmtl.scoring.base.Scorer`."""
        parts = {**inputs.rows, inputs.primary: inputs.target}  # the primary is no candidate of its own
        counts = {task: self._counts(inputs.pool.split(task, "train"), rows) for task, rows in parts.items()}
        primary = counts.pop(inputs.primary)
        pool = np.sum([np.zeros(self.buckets, dtype=np.int64), *counts.values()], axis=0)
        np.save(out / TABLE, self._log_share(primary) - self._log_share(pool))
        tokens = sum(int(inputs.pool.split(task, "train").lengths[rows].sum()) for task, rows in parts.items())
        return {"flops": 0.0, "examples": sum(map(len, parts.values())), "tokens": tokens}

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """(1, n) log importance weights or their means; see `fastmtl.scoring.base.Scorer`."""
        assert state is not None
        log_ratios = np.load(state / TABLE)
        parts: list[np.ndarray] = [np.empty(0)]
        for rows, of_row, buckets in self._blocks(inputs.pool.split(task, "train"), positions):
            sums = np.bincount(of_row, weights=log_ratios[buckets], minlength=rows)
            parts.append(sums / np.maximum(np.bincount(of_row, minlength=rows), 1) if self.per_ngram else sums)
        scores = np.concatenate(parts)
        if self.gumbel:
            scores += _gumbel(inputs.row_ids(task, positions), inputs.seed)
        return scores.astype(np.float32)[None]

    def flops(self, inputs: ScoringInputs, lengths: np.ndarray) -> float:
        """Of the model's forward passes: none."""
        return 0.0

    def _counts(self, rows: TokenRows, positions: np.ndarray) -> np.ndarray:
        """(buckets,) int64: n-grams of some rows by bucket."""
        counts = np.zeros(self.buckets, dtype=np.int64)
        for _, _, buckets in self._blocks(rows, positions):
            counts += np.bincount(buckets, minlength=self.buckets)
        return counts

    def _log_share(self, counts: np.ndarray) -> np.ndarray:
        return np.log(counts / max(counts.sum(), 1) + self.smoothing)

    def _blocks(self, rows: TokenRows, positions: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each block of rows their number, and for each of their n-grams its row in the block and its bucket."""
        ends = np.cumsum(rows.lengths[positions])
        for part in np.split(positions, np.flatnonzero(np.diff(ends // BLOCK_TOKENS)) + 1):
            lengths = rows.lengths[part]
            of_token = np.repeat(np.arange(len(part)), lengths)
            starts = rows.offsets[part] - (np.cumsum(lengths) - lengths)
            ids = rows.ids[np.arange(len(of_token)) + starts[of_token]].astype(np.uint64)
            inside = of_token[:-1] == of_token[1:]  # no bigram goes over the end of a row
            # Beside an id, which has 32 bits, a bigram has the id before it, plus one, in the upper 32.
            bigrams = ((ids[:-1] + np.uint64(1)) << np.uint64(32) | ids[1:])[inside]
            hashes = scrambled(np.concatenate([ids, bigrams])) >> np.uint64(32)
            buckets = (hashes * np.uint64(self.buckets) >> np.uint64(32)).astype(np.int64)
            yield len(part), np.concatenate([of_token, of_token[:-1][inside]]), buckets


def _gumbel(keys: np.ndarray, salt: int) -> np.ndarray:
    """(n,) float64: standard Gumbel noise that belongs to each key, whichever keys stand beside it."""
    uniform = ((scrambled(keys, salt) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    return -np.log(-np.log(uniform))
