"""Statistics of scores: paired comparisons over seeds and over rows, corrections, power, cost against score.

Scores are plain numbers of which more is better, in the metric's own unit. scipy and statsmodels do the arithmetic;
they are imported where they are used, since they are slow to load.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastmtl.errors import UserError

MOST_SEEDS = 10**9
"""Effects that need more seeds than this need infinitely many."""

BLOCK = 400_000
"""Counts of resampled rows that are held at once: 3 MB stay in the cache."""


@dataclass(frozen=True)
class Paired:
    """Differences a - b over n seed pairs: mean, standard deviation, confidence interval, two-sided p.

    Where all differences are equal their spread is unknown, not zero: three seeds on 277 validation rows agree now and
    then. The interval is then NaN, and p is NaN as well, or 1 where all differences are zero.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float


def paired(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Paired:
    """Student's paired t-test of a (n,) against b (n,), scores of the same n seeds.

    The interval is Student's too, for any n. Over 1,500 simulations of normal differences 95 % intervals covered

        n             5     10    20    30
        t            95.3  95.1  94.4  94.7 %
        BCa          85.5  89.6  92.7  93.4 %

    and with a run in ten failing in both arms BCa fell to 82 % at n = 10 (t: 97.5 %): a bootstrap over so few seeds is
    too narrow. What both miss is a failing run in one arm alone (t: 84 % at n = 5), of which few seeds show nothing.
    A `UserError` for fewer than two pairs and for scores that are NaN.
    """
    from scipy.stats import ttest_rel

    a, b = _scores(a), _scores(b)
    assert a.shape == b.shape, "scores must be paired"
    if len(a) < 2:
        raise UserError(f"a test needs two or more seeds, not {len(a)}; run more of them, as with 'seed=range(5)'")
    difference = a - b
    n, mean, sd = len(a), float(difference.mean()), float(difference.std(ddof=1))
    rounding = 1e-12 * max(1.0, np.abs(a).max(), np.abs(b).max())
    if np.ptp(difference) <= rounding:
        return Paired(n, mean, 0.0, math.nan, math.nan, 1.0 if abs(mean) <= rounding else math.nan)
    test = ttest_rel(a, b)
    low, high = test.confidence_interval(confidence)
    return Paired(n, mean, sd, float(low), float(high), float(test.pvalue))


def holm(p: ArrayLike) -> np.ndarray:
    """Adjust p (k,) for the family of its k tests (Holm 1979); NaN stays NaN and does not count in the family."""
    from statsmodels.stats.multitest import multipletests

    adjusted = np.array(p, dtype=float)
    known = ~np.isnan(adjusted)
    if known.any():
        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted


def detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true effect that a paired t-test over n seeds finds with this probability; infinite for n < 2.

    `sd` is that of the differences, and the effect is in its unit.
    """
    return sd * _effect(n, power, alpha) if n > 1 else math.inf


def seeds_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The fewest seeds, at least two, over which `detectable` reaches the effect; infinite where there is none."""
    if math.isnan(effect) or math.isnan(sd):
        return math.nan
    if not effect:
        return math.inf
    n = bisect_left(range(MOST_SEEDS), True, lo=2, key=lambda n: detectable(sd, n, power, alpha) <= abs(effect))
    return n if n < MOST_SEEDS else math.inf


@cache
def _effect(n: int, power: float, alpha: float) -> float:
    """`detectable` in standard deviations.

    By the noncentral F distribution of t squared: statsmodels' TTestPower, which this equals where it has an answer,
    has none for few seeds and small alpha (0.15: NaN for n = 5, alpha = 0.001).
    """
    from scipy import stats
    from scipy.optimize import brentq

    limit = stats.t.isf(alpha / 2, n - 1)
    # With probability `power` both hold: the mean's error is below the one part of the bound, the sd's below the other.
    each = (1 + power) / 2
    bound = limit * math.sqrt(stats.chi2.ppf(each, n - 1) / (n - 1)) + stats.norm.ppf(each)
    return brentq(lambda shift: stats.ncf.sf(limit**2, 1, n - 1, shift**2) - power, 0, bound) / math.sqrt(n)


def one_sd_rule(single: ArrayLike, multi: ArrayLike) -> Literal["IMPROVED", "NEUTRAL", "DROPPED"]:
    """FastMTL's rule: whether the mean changed by more than one standard deviation of the single-task runs (n,)."""
    single, multi = _scores(single), _scores(multi)
    if len(single) < 2:
        raise UserError(f"the rule of one sd needs two or more seeds, not {len(single)}; run more, as 'seed=range(5)'")
    change, sd = multi.mean() - single.mean(), single.std(ddof=1)
    return "IMPROVED" if change > sd else "DROPPED" if change < -sd else "NEUTRAL"


def pareto(cost: ArrayLike, score: ArrayLike) -> np.ndarray:
    """Mask (n,) of the points that no other one beats: as cheap and as good, and better in one of the two."""
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] >= score)
    better = (cost[:, None] < cost) | (score[:, None] > score)
    return ~np.any(no_worse & better, axis=0)


def at_cost(cost: ArrayLike, score: ArrayLike, wanted: ArrayLike) -> np.ndarray:
    """The score reached at the wanted costs (k,), between measured points (n,) linear in the cost's logarithm.

    NaN below the cheapest and above the dearest point: nothing is extrapolated.
    """
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    order = np.argsort(cost, kind="stable")
    return np.interp(np.log(wanted), np.log(cost[order]), score[order], left=math.nan, right=math.nan)


def bootstrap_rows(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean over seeds of a - b, from `resampled_scores` (n, draws) of the same rows.

    It says how far the choice of the validation rows alone moves the difference, with these n trained pairs given.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile((a - b).mean(axis=0), [tail, 1 - tail])
    return float(low), float(high)


def resampled_scores(
    metric: str, labels: np.ndarray, predictions: np.ndarray, rng: np.random.Generator, draws: int = 2000,
    rows: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Scores (n, draws) of n models, all on the same resamples of the m rows, drawn with replacement.

    Labels (m,) and predictions (n, m) are class codes, or values of a regression; `metric` is one of `tasks.METRICS`.
    Of tagging they are of words, and `rows` says of which row, 0 to m - 1, each word is: a row is drawn as a whole.
    """
    m = len(labels) if rows is None else int(rows.max()) + 1
    size = max(1, BLOCK // len(labels))
    blocks = []
    for count in (min(size, draws - start) for start in range(0, draws, size)):
        drawn = rng.integers(m, size=(count, m)) + m * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * m).reshape(count, m).astype(float)
        blocks.append(weighted_scores(metric, labels, predictions, weights if rows is None else weights[:, rows]))
    return np.concatenate(blocks, axis=1)


def weighted_scores(metric: str, labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores (n, d) of predictions (n, m) against labels (m,), where row i counts weights[:, i] (d, m) times.

    The definitions are those of `training.metrics`, but that a constant prediction has a Matthews correlation of 0.
    An undefined correlation is NaN. For `f1_micro` the code -1 is the negative tag.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([SCORES[metric](labels, prediction, weights) for prediction in predictions])


def _accuracy(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ (labels == prediction) / weights.sum(axis=1)


def _f1(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hits, said, true = _counts(labels == 1, prediction == 1, weights)
    return np.divide(2 * hits, said + true, out=np.zeros_like(hits), where=said + true > 0)


def _f1_micro(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    is_true, is_said = labels >= 0, prediction >= 0
    hits, named = weights @ (is_true & (labels == prediction)), weights @ is_true + weights @ is_said
    return np.divide(2 * hits, named, out=np.zeros_like(hits), where=named > 0)


def _f1_macro(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the classes that a resample has, as a label or as a prediction."""
    hits, said, true = _counts(*_one_hot(labels, prediction), weights)
    seen = said + true > 0
    return np.divide(2 * hits, said + true, out=np.zeros_like(hits), where=seen).sum(axis=1) / seen.sum(axis=1)


def _matthews(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hits, said, true = _counts(*_one_hot(labels, prediction), weights)
    rows = weights.sum(axis=1)
    above = hits.sum(axis=1) * rows - (said * true).sum(axis=1)
    below = np.sqrt((rows**2 - (said**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)))
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _one_hot(labels: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, C) each, over the C classes that occur."""
    classes = np.union1d(labels, prediction)
    return labels[:, None] == classes, prediction[:, None] == classes


def _counts(
    is_label: np.ndarray, is_said: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(d,) or (d, C) each: rows of the class that were found, rows said to be of it, rows of it."""
    return weights @ (is_label & is_said), weights @ is_said, weights @ is_label


def _pearson(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = labels - labels.mean(), prediction - prediction.mean()  # sums of squares of small numbers lose nothing
    sums = weights @ np.stack([x, y, x * x, y * y, x * y], axis=1)
    mean_x, mean_y, xx, yy, xy = sums.T / weights.sum(axis=1)
    return (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))


def _spearman(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    (x, xx), (y, yy) = _ranks(labels, weights), _ranks(prediction, weights)
    return np.einsum("dm,dm->d", x * weights, y) / np.sqrt(xx * yy)


def _ranks(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each row (d, m) among the rows as often as they count, less the mean rank, ties sharing theirs; and the
    sum of their squares (d,)."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    by_group = weights[:, np.argsort(group, kind="stable")]
    tied = np.add.reduceat(by_group, np.cumsum(size) - size, axis=1)
    rank = tied.cumsum(axis=1) - tied / 2 - weights.sum(axis=1, keepdims=True) / 2
    return rank[:, group], np.einsum("dg,dg,dg->d", tied, rank, rank)


SCORES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy, "f1": _f1, "f1_macro": _f1_macro, "f1_micro": _f1_micro, "matthews": _matthews,
    "pearson": _pearson, "spearman": _spearman,
}  # fmt: skip


def _scores(values: ArrayLike) -> np.ndarray:
    scores = np.asarray(values, dtype=float)
    if np.isnan(scores).any():
        raise UserError(
            "a score is nan, as the correlation of constant predictions; leave that cell out or train longer"
        )
    return scores
