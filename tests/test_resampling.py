"""Weighted metrics against those of training, and what resampled rows say of scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastmtl.resampling import resampled_scores, row_covariance, weighted_scores
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import kind_of, kinds
from fastmtl.training.metrics import measure

CORRELATIONS = kind_of("regression").metrics


def models(metric: str, m: int = 60, classes: int = 3, n: int = 2) -> tuple[TaskSpec, np.ndarray, np.ndarray]:
    """A task, labels (m,), and predictions (n, m) of which most are right; those of a regression have ties."""
    rng = np.random.default_rng(0)
    if metric in CORRELATIONS:
        labels = rng.integers(0, 6, m) / 2
        return (
            TaskSpec("t", "regression", ("a",), metrics=(metric,)),
            labels,
            np.round(labels + rng.normal(size=(n, m)), 1),
        )
    if metric == "f1_micro":
        labels = rng.integers(0, classes, m)
        predictions = np.where(rng.random((n, m)) < 0.6, labels, rng.integers(0, classes, (n, m)))
        return TaskSpec("t", "tagging", ("a",), ("O", "x", "y"), (metric,)), labels - 1, predictions - 1
    classes = 2 if metric == "f1" else classes
    labels = rng.integers(0, classes, m)
    predictions = np.where(rng.random((n, m)) < 0.6, labels, rng.integers(0, classes, (n, m)))
    return TaskSpec("t", "classification", ("a",), tuple("xyz"[:classes]), (metric,)), labels, predictions


@pytest.mark.parametrize("metric", [metric for kind in kinds() for metric in kind_of(kind).metrics])
def test_scores_are_the_metrics_of_training_for_rows_that_count_several_times(metric: str) -> None:
    task, labels, predictions = models(metric)
    weights = np.random.default_rng(1).integers(0, 3, size=(4, len(labels)))
    told = weighted_scores(metric, labels, predictions, weights.astype(float))
    for i, prediction in enumerate(predictions):
        for j, times in enumerate(weights):
            said, true = np.repeat(prediction, times), np.repeat(labels, times)
            if task.kind == "tagging":
                said, true = said + 1, true + 1  # from -1, the negative tag, to its code in the task
            outputs = said[:, None] if task.kind == "regression" else np.eye(len(task.labels))[said]
            known = measure(torch.tensor(outputs).float(), torch.tensor(true).float(), task)[metric]
            assert told[i, j] == pytest.approx(known, abs=1e-5)


def test_constant_predictions_have_no_correlation_and_a_matthews_of_zero() -> None:
    ones = np.ones((1, 4))
    labels, constant = np.array([0, 0, 1, 0]), np.zeros((1, 4), int)
    assert weighted_scores("matthews", labels, constant, ones) == 0
    assert weighted_scores("f1", labels, constant, ones) == 0
    for metric in CORRELATIONS:
        assert np.isnan(weighted_scores(metric, labels / 1, constant / 1, ones))


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_the_covariance_over_rows_is_that_of_the_jackknife(metric: str) -> None:
    _, labels, predictions = models(metric, m=400, n=4)
    leave_one_out = 1.0 - np.eye(400)
    scores = weighted_scores(metric, labels, predictions, leave_one_out)
    known = np.cov(scores, ddof=0) * 399
    found = row_covariance(metric, labels, predictions, np.random.default_rng(0))
    assert found.shape == (4, 4)
    assert found == pytest.approx(known, abs=0.1 * known[0, 0])


def test_models_without_a_defined_score_leave_the_covariance_of_the_others() -> None:
    _, labels, predictions = models("pearson", n=3)
    predictions[1] = 1.0
    found = row_covariance("pearson", labels, predictions, np.random.default_rng(0), 50)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()
    assert np.isnan(row_covariance("pearson", labels, predictions[1:2], np.random.default_rng(0), 50)).all()
    predictions[1, 0] = 2.0  # constant on the third of the resamples that lack this row
    assert np.isfinite(row_covariance("pearson", labels, predictions, np.random.default_rng(0), 50)).all()


def test_equal_generators_make_equal_resamples_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels, predictions = models("accuracy")
    whole = resampled_scores("accuracy", labels, predictions, np.random.default_rng(3), 50)
    monkeypatch.setattr("fastmtl.resampling.BLOCK", 7 * len(labels))
    assert (resampled_scores("accuracy", labels, predictions, np.random.default_rng(3), 50) == whole).all()


def test_words_of_one_row_are_drawn_together() -> None:
    rows, labels = np.array([0, 0, 0, 1]), np.zeros(4, int)
    prediction = np.array([[0, 0, 0, 5]])  # one row all right, one all wrong
    scores = resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200, rows)
    assert set(scores[0].tolist()) == {0.0, 0.75, 1.0}  # both rows wrong, one of each, both right
    one_a_row = resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200, np.arange(4))
    assert (one_a_row == resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200)).all()
