"""Scores on resampled validation rows: how much of a score is the choice of the rows it was measured on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WeightedScore = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Labels (m,), predictions (m,) and weights (d, m) -> scores (d,): a metric on rows that count several times."""

BLOCK = 400_000
"""Counts of resampled rows that are held at once: 3 MB stay in the cache."""


def resampled_scores(
    metric: str | WeightedScore, labels: np.ndarray, predictions: np.ndarray, rng: np.random.Generator,
    draws: int = 2000, rows: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Scores (n, draws) of n models, all on the same resamples of the m rows, drawn with replacement.

    Labels (m,) and predictions (n, m) are class codes, or values of a regression; `metric` is one of `SCORES` or
    a function like them.
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


def row_covariance(
    metric: str | WeightedScore, labels: np.ndarray, predictions: np.ndarray, rng: np.random.Generator,
    draws: int = 2000, rows: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Covariance (n, n) of the scores of n models by the choice of the rows, over `resampled_scores`.

    NaN for a model whose score is undefined on most resamples; resamples on which that of another one is are left out.
    """
    scores = resampled_scores(metric, labels, predictions, rng, draws, rows)
    known = np.isnan(scores).mean(axis=1) < 0.5
    covariance = np.full((len(scores), len(scores)), np.nan)
    if known.any():
        scores = scores[known]
        covariance[np.ix_(known, known)] = np.cov(scores[:, ~np.isnan(scores).any(axis=0)])
    return covariance


def weighted_scores(
    metric: str | WeightedScore, labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Scores (n, d) of predictions (n, m) against labels (m,), where row i counts weights[:, i] (d, m) times.

    The definitions are those of `training.metrics`, but that a constant prediction has a Matthews correlation of 0.
    An undefined correlation is NaN. For `f1_micro` the code -1 is the negative tag.
    """
    score = SCORES[metric] if isinstance(metric, str) else metric
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([score(labels, prediction, weights) for prediction in predictions])


def _accuracy(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ (labels == prediction) / weights.sum(axis=1)


def _f1(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _dice(*_counts(labels == 1, prediction == 1, weights))


def _f1_micro(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    is_true = labels >= 0
    return _dice(weights @ (is_true & (labels == prediction)), weights @ (prediction >= 0), weights @ is_true)


def _f1_macro(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the classes that a resample has, as a label or as a prediction."""
    hits, said, true = _counts(*_one_hot(labels, prediction), weights)
    return _dice(hits, said, true).sum(axis=1) / (said + true > 0).sum(axis=1)


def _matthews(labels: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hits, said, true = _counts(*_one_hot(labels, prediction), weights)
    rows = weights.sum(axis=1)
    above = hits.sum(axis=1) * rows - (said * true).sum(axis=1)
    below = np.sqrt((rows**2 - (said**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)))
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _dice(hits: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """F1; 0 where there is nothing to find and nothing is said."""
    return np.divide(2 * hits, said + true, out=np.zeros_like(hits), where=said + true > 0)


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


SCORES: dict[str, WeightedScore] = {
    "accuracy": _accuracy, "f1": _f1, "f1_macro": _f1_macro, "f1_micro": _f1_micro, "matthews": _matthews,
    "pearson": _pearson, "spearman": _spearman,
}  # fmt: skip
