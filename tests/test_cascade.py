"""The audit's estimate against the overlap that it estimates."""

from __future__ import annotations

import numpy as np
import pytest

from fastmtl.selection.cascade import overlap_at_least


def simulated(correlation: float, seed: int, audit: int = 400) -> tuple[float, dict[str, float]]:
    """True overlap and estimate of a cascade that keeps 30 % of 4000 rows and chooses 200."""
    rng = np.random.default_rng(seed)
    large = rng.normal(size=4000)
    small = correlation * large + np.sqrt(1 - correlation**2) * rng.normal(size=4000)
    order = np.argsort(-small)
    kept, rejected = order[:1200], order[1200:]
    chosen = kept[np.argsort(-large[kept])[:200]]
    true = len(set(chosen) & set(np.argsort(-large)[:200])) / 200
    audited = rng.choice(rejected, size=audit, replace=False)
    return true, overlap_at_least(large[chosen], large[audited], len(rejected))


@pytest.mark.parametrize("correlation", [0.99, 0.8, 0.5])
def test_the_lower_limit_holds_in_nine_of_ten_simulations_or_more(correlation: float) -> None:
    runs = [simulated(correlation, seed) for seed in range(40)]
    assert sum(estimate["low"] <= true for true, estimate in runs) >= 36


def test_auditing_every_rejected_row_gives_no_more_than_the_true_overlap_and_no_margin() -> None:
    true, estimate = simulated(0.7, 0, audit=2800)
    assert estimate["low"] == estimate["overlap_at_least"] <= true


def test_a_perfect_first_level_loses_nothing() -> None:
    true, estimate = simulated(1.0, 0)
    assert true == estimate["overlap_at_least"] == 1.0
    assert estimate["better"] == 0
    assert estimate["low"] < 1.0  # 400 rows cannot rule out every loss


def test_nothing_rejected_and_nothing_audited_are_told_apart() -> None:
    assert overlap_at_least(np.ones(3), np.empty(0), 0)["overlap_at_least"] == 1.0
    assert overlap_at_least(np.ones(3), np.empty(0), 10)["overlap_at_least"] is None
