"""Which rows pass from one level of a cascade to the next, and how much of the full choice is lost by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from fastmtl.selection.candidates import top_k


def best_of(reached: np.ndarray, row_ids: np.ndarray, scores: np.ndarray, count: int, salt: int) -> np.ndarray:
    """Row ids, ascending, of the `count` best of the rows `reached` (ascending), whose scores are among those given."""
    inside = np.isin(row_ids, reached, assume_unique=True)
    row_ids, scores = row_ids[inside], scores[inside]
    return np.sort(row_ids[top_k([(row_ids, scores)], count, salt)])


def overlap_at_least(chosen: np.ndarray, audited: np.ndarray, rejected: int) -> dict[str, Any]:
    """A lower bound of the overlap between the chosen top k and the one without a cascade, as a share of k.

    A rejected row belongs to the full top k only if it beats the worst chosen one. With p the share of such rows in the
    audit, at most p x rejected of the k are lost: `overlap_at_least` takes p as observed, `low` its upper 95 % limit
    (one-sided, Clopper and Pearson 1934). Both are None where nothing was audited.

    Args:
        chosen: (k,) scores of the last level.
        audited: (a,) scores of the last level, of a random sample of the `rejected` rows.
        rejected: Candidates that did not reach the last level.
    """
    result: dict[str, Any] = {"rejected": rejected, "audited": len(audited), "better": None}
    if not rejected:
        return {**result, "overlap_at_least": 1.0, "low": 1.0}
    if not len(audited) or not len(chosen):
        return {**result, "overlap_at_least": None, "low": None}
    better = int(np.sum(audited > chosen.min()))
    upper = binomtest(better, len(audited)).proportion_ci(confidence_level=0.9, method="exact").high
    whole = len(audited) == rejected  # then the share is known

    def overlap(share: float) -> float:
        return round(max(0.0, 1 - share * rejected / len(chosen)), 4)

    share = better / len(audited)
    return {**result, "better": better, "overlap_at_least": overlap(share), "low": overlap(share if whole else upper)}
