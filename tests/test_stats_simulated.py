"""Error rates and power of comparisons in simulated studies, whose arms share seeds and validation rows.

Whether arm k with seed s is right on row i is decided by a level, the row's difficulty (for all arms), the arm's liking
of the row (for all seeds), the seed's luck (for all arms), the arm's luck with the seed (on all rows), and noise, all
normal. So the rate of right answers over all seeds and rows is known, and equal without an effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import norm

from fastmtl import resampling
from fastmtl.stats import Noise, detectable, half_width, noise, p_value, seeds_needed

DIFFICULTY, LIKING, NOISE = 1.0, 0.4, 0.6
FAMILY = [(arm, reference) for reference in range(3) for arm in range(reference + 1, 6)]
"""Six arms, of which the first three are references: the twelve comparisons of a report."""


@dataclass(frozen=True)
class World:
    """Studies of six arms; `luck` is the standard deviation of seeds, of each arm and of all, in units of the latent
    score (0.1 is about 2 points of accuracy); `liking` makes arms differ on the same rows with every seed."""

    rows: int
    seeds: int
    luck: float = 0.1
    liking: float = LIKING
    rate: float = 0.7

    def hits(self, rng: np.random.Generator, rate: np.ndarray | float | None = None, arms: int = 6) -> np.ndarray:
        """Right answers (arms, seeds, rows) of one study; `rate` (arms,) where it differs between arms."""
        spread = math.sqrt(DIFFICULTY**2 + self.liking**2 + 2 * self.luck**2 + NOISE**2)
        level = norm.ppf(np.broadcast_to(self.rate if rate is None else rate, arms)) * spread
        of_row = rng.standard_normal(self.rows, np.float32) * DIFFICULTY
        of_arm = of_row + self.liking * rng.standard_normal((arms, self.rows), np.float32)
        luck = self.luck * (rng.normal(size=self.seeds) + rng.normal(size=(arms, self.seeds))) + level[:, None]
        latent = rng.standard_normal((arms, self.seeds, self.rows), np.float32)
        latent *= NOISE
        latent += of_arm[:, None]
        return latent > -luck[..., None].astype(np.float32)

    def compared(self, hits: np.ndarray, pairs: list[tuple[int, int]]) -> tuple[np.ndarray, Noise]:
        """Mean differences (pairs,) and their noise; the covariance is what endless resampling of the rows gives."""
        arms, n, m = hits.shape
        cells = hits.reshape(arms * n, m).astype(np.float32)
        score = cells.mean(axis=1, dtype=float)
        covariance = (cells @ cells.T / m - np.outer(score, score)) / m
        return self.difference(score.reshape(arms, n), covariance.reshape(arms, n, arms, n), pairs)

    def difference(
        self, score: np.ndarray, covariance: np.ndarray, pairs: list[tuple[int, int]]
    ) -> tuple[np.ndarray, Noise]:
        """The same of scores (arms, seeds) with that covariance by the choice of the rows."""
        a, b = np.array(pairs).T
        cross = covariance[a, :, b]
        total = covariance[a, :, a] + covariance[b, :, b] - cross - cross.swapaxes(1, 2)
        return (score[a] - score[b]).mean(axis=1), noise(score[a] - score[b], total, self.rows)


def p_of(world: World, studies: list[tuple[np.ndarray, Noise]]) -> np.ndarray:
    """p (studies, pairs), all in one call: it is the same arithmetic."""
    mean = np.array([mean for mean, _ in studies])
    parts = [np.array([getattr(told, part) for _, told in studies]) for part in ("seeds", "shared", "own")]
    return p_value(mean, Noise(world.seeds, *parts, world.rows))


def error(rate: float, studies: int) -> float:
    """Two standard errors of a simulated rate."""
    return 2 * math.sqrt(rate * (1 - rate) / studies)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 5, 10, 20])
@pytest.mark.parametrize(("rows", "studies"), [(277, 1000), (1500, 1000), (10_000, 500)])
@pytest.mark.parametrize(("luck", "liking"), [(0.07, 0.4), (0.02, 1.0)])
def test_without_an_effect_one_family_of_twelve_in_twenty_claims_something(
    rows: int, studies: int, seeds: int, luck: float, liking: float
) -> None:
    """With two seeds too: no least number of seeds is needed."""
    world, rng = World(rows, seeds, luck, liking), np.random.default_rng(0)
    p = p_of(world, [world.compared(world.hits(rng), FAMILY) for _ in range(studies)])
    assert (12 * p.min(axis=1) < 0.05).mean() <= 0.05 + error(0.05, studies)  # Holm's first step
    assert (p < 0.05).mean() <= 0.05 + error(0.05, studies)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["f1", "pearson"])
def test_of_resampled_rows_no_more_families_claim_something(metric: str) -> None:
    """As a report computes it, for metrics that are no means over rows."""
    world, rng, studies, p = World(277, 8, 0.07), np.random.default_rng(0), 250, []
    for _ in range(studies):
        hits = world.hits(rng).reshape(6 * 8, 277)
        labels = rng.integers(2, size=277)
        predictions = np.where(hits, labels, 1 - labels)
        if metric == "pearson":
            labels, predictions = labels.astype(float), predictions + 0.5 * rng.normal(size=predictions.shape)
        score = resampling.weighted_scores(metric, labels, predictions, np.ones((1, 277))).reshape(6, 8)
        covariance = resampling.row_covariance(metric, labels, predictions, rng, draws=500).reshape(6, 8, 6, 8)
        p.append(p_value(*world.difference(score, covariance, FAMILY)))
    assert (12 * np.min(p, axis=1) < 0.05).mean() <= 0.05 + error(0.05, studies)
    assert 0.03 < (np.array(p) < 0.05).mean() < 0.06


PAIR = [(0, 1)]


def found(world: World, rng: np.random.Generator, effect: float, alpha: float) -> bool:
    """Whether a new study finds an effect of this size."""
    hits = world.hits(rng, np.array([0.6 + effect / 2, 0.6 - effect / 2]), arms=2)
    mean, told = world.compared(hits, PAIR)
    return mean[0] > half_width(told, alpha)[0]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10, 20])
@pytest.mark.parametrize(("rows", "studies"), [(277, 1200), (1500, 1200), (10_000, 600)])
def test_effects_as_large_as_reported_to_be_detectable_are_found_in_four_studies_of_five(
    rows: int, studies: int, seeds: int
) -> None:
    """Each study reports its own effect, from its own estimates; another study then has an effect of that size."""
    world, rng, alpha = World(rows, seeds, 0.07, rate=0.6), np.random.default_rng(0), 0.05 / 12
    told = [one(world.compared(world.hits(rng, arms=2), PAIR)[1]) for _ in range(studies)]
    share = np.mean([found(world, rng, detectable(noise, alpha=alpha), alpha) for noise in told])
    assert share == pytest.approx(0.8, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.04, 0.06])
def test_as_many_seeds_as_reported_to_be_needed_find_the_effect_in_four_studies_of_five(effect: float) -> None:
    world, rng, alpha, shares = World(1500, 5, 0.07, rate=0.6), np.random.default_rng(0), 0.05 / 12, []
    for _ in range(1000):
        needed = seeds_needed(effect, one(world.compared(world.hits(rng, arms=2), PAIR)[1]), alpha=alpha)
        shares.append(found(replace(world, seeds=int(needed)), rng, effect, alpha))
    assert np.mean(shares) == pytest.approx(0.8, abs=0.04)


def one(told: Noise) -> Noise:
    """Of the first pair, as numbers."""
    return replace(told, seeds=float(told.seeds[0]), shared=float(told.shared[0]), own=float(told.own[0]))
