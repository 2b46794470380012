"""Statistics against known answers, scipy's and statsmodels' own, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.power import TTestPower

from fastmtl.errors import UserError
from fastmtl.stats import (
    at_cost,
    bootstrap_rows,
    detectable,
    holm,
    one_sd_rule,
    paired,
    pareto,
    resampled_scores,
    seeds_needed,
    weighted_scores,
)
from fastmtl.tasks import METRICS, TaskSpec
from fastmtl.training.metrics import measure

DRAWS = 2000


def test_the_paired_comparison_of_students_sleep_data() -> None:
    one = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    two = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    told = paired(two, one)
    assert (told.n, told.mean, told.sd) == (10, pytest.approx(1.58), pytest.approx(1.2299955))
    assert (told.low, told.high, told.p) == pytest.approx((0.7001142, 2.4598858, 0.00283289), rel=1e-6)  # as R has it
    assert told.p == pytest.approx(stats.ttest_rel(two, one).pvalue)
    narrow = paired(two, one, confidence=0.5)
    assert told.low < narrow.low < narrow.mean < narrow.high < told.high


def test_equal_differences_tell_no_spread() -> None:
    same = paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    shifted = paired([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])  # equal but for the last bits
    assert (same.mean, same.p) == (0, 1)
    assert (shifted.mean, shifted.sd) == (pytest.approx(0.1), 0)
    assert all(map(math.isnan, (same.low, same.high, shifted.low, shifted.high, shifted.p)))


def test_one_seed_and_undefined_scores_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"two or more seeds, not 1; .*'seed=range\(5\)'"):
        paired([0.5], [0.4])
    with pytest.raises(UserError, match="a score is nan"):
        paired([0.5, math.nan], [0.4, 0.4])
    with pytest.raises(UserError, match="two or more seeds"):
        one_sd_rule([0.5], [0.6, 0.7])


def test_without_an_effect_one_test_in_twenty_is_positive_and_intervals_cover() -> None:
    scores = np.random.default_rng(0).normal(size=(DRAWS, 2, 5))
    told = [paired(a, b) for a, b in scores]
    positive = np.array([one.p < 0.05 for one in told])
    assert positive.mean() == pytest.approx(0.05, abs=0.015)
    assert (positive == [one.low > 0 or one.high < 0 for one in told]).all()


def test_with_holm_one_family_in_twenty_has_a_false_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects at each call
    scores = np.random.default_rng(0).normal(size=(DRAWS, 5, 5))  # four arms against one reference, by five seeds
    p = stats.ttest_rel(scores[:, 1:], scores[:, :1], axis=2).pvalue
    assert (p.min(axis=1) < 0.05).mean() > 0.1
    assert np.mean([holm(family).min() < 0.05 for family in p]) <= 0.065


def test_over_few_seeds_a_bootstrap_is_too_narrow_and_students_interval_is_not() -> None:
    """Why `paired` has no bootstrap: this is the n = 10 of its docstring."""
    scores = np.random.default_rng(0).normal(size=(DRAWS, 10))
    student = stats.ttest_1samp(scores, 0, axis=1).confidence_interval()
    bca = stats.bootstrap((scores[:500],), np.mean, axis=1, n_resamples=500, rng=0).confidence_interval
    assert ((student.low <= 0) & (student.high >= 0)).mean() == pytest.approx(0.95, abs=0.015)
    assert ((bca.low <= 0) & (bca.high >= 0)).mean() < 0.93


def test_holm_by_hand_with_a_missing_test() -> None:
    assert holm([0.03, math.nan, 0.01, 0.04]) == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()
    assert holm([]).shape == (0,)


@pytest.mark.parametrize(("n", "power", "alpha"), [(3, 0.8, 0.05), (5, 0.8, 0.05), (10, 0.9, 0.01), (200, 0.5, 0.001)])
def test_detectable_is_that_of_statsmodels(n: int, power: float, alpha: float) -> None:
    assert detectable(0.02, n, power, alpha) == pytest.approx(
        0.02 * TTestPower().solve_power(None, n, alpha, power), rel=1e-5
    )


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (2, 0.001), (5, 0.001), (5, 1e-5)])
def test_detectable_where_statsmodels_has_no_answer(n: int, alpha: float) -> None:
    shift, limit = detectable(1, n, alpha=alpha) * math.sqrt(n), stats.t.isf(alpha / 2, n - 1)
    sd = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))  # all that can be estimated
    assert (stats.norm.sf(limit * sd - shift) + stats.norm.cdf(-limit * sd - shift)).mean() == pytest.approx(
        0.8, abs=1e-4
    )


def test_a_detectable_effect_is_found_as_often_as_promised() -> None:
    shifted = np.random.default_rng(0).normal(detectable(1, 5), 1, size=(DRAWS, 5))
    assert (stats.ttest_1samp(shifted, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_seeds_needed_is_the_first_number_that_suffices() -> None:
    n = int(seeds_needed(-0.01, 0.03))
    assert n == math.ceil(TTestPower().solve_power(1 / 3, None, 0.05, 0.8))
    assert detectable(0.03, n) <= 0.01 < detectable(0.03, n - 1)
    assert seeds_needed(0.01, 0.03, alpha=0.05 / 20) > n


def test_power_at_the_ends() -> None:
    assert detectable(0.0, 5) == 0
    assert seeds_needed(0.01, 0.0) == 2
    assert detectable(0.02, 1) == seeds_needed(0.0, 0.02) == seeds_needed(1e-9, 1.0) == math.inf
    assert math.isnan(seeds_needed(math.nan, 0.02))


def test_the_rule_of_one_standard_deviation() -> None:
    single = [0.50, 0.52, 0.54]  # 0.52, sd 0.02
    assert one_sd_rule(single, [0.545]) == "IMPROVED"
    assert one_sd_rule(single, [0.50, 0.53]) == "NEUTRAL"
    assert one_sd_rule(single, [0.49]) == "DROPPED"


def test_the_front_has_no_point_that_another_one_beats() -> None:
    cost, score = [1, 2, 2, 3, 4, 1], [0.5, 0.6, 0.4, 0.6, 0.7, 0.5]
    assert pareto(cost, score).tolist() == [True, True, False, False, True, True]  # twins stay both


def test_a_score_is_read_between_costs_and_never_beyond() -> None:
    assert at_cost([100, 1, 10], [0.9, 0.5, 0.6], [0.5, 1, math.sqrt(10), 100, 101]) == pytest.approx(
        [math.nan, 0.5, 0.55, 0.9, math.nan], nan_ok=True
    )


def models(metric: str, m: int = 60, classes: int = 3, n: int = 2) -> tuple[TaskSpec, np.ndarray, np.ndarray]:
    """A task, labels (m,), and predictions (n, m) of which most are right; those of a regression have ties."""
    rng = np.random.default_rng(0)
    if metric in METRICS["regression"]:
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


@pytest.mark.parametrize("metric", [metric for kind in METRICS.values() for metric in kind])
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
    for metric in METRICS["regression"]:
        assert np.isnan(weighted_scores(metric, labels / 1, constant / 1, ones))


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_the_interval_over_rows_is_that_of_scipy(metric: str) -> None:
    _, labels, predictions = models(metric, n=4)

    def difference(rows: np.ndarray) -> float:
        scores = weighted_scores(metric, labels[rows], predictions[:, rows], np.ones((1, len(rows))))
        return float(scores[:2].mean() - scores[2:].mean())

    known = stats.bootstrap(
        (np.arange(len(labels)),), difference, vectorized=False, n_resamples=1000, method="percentile", rng=0
    ).confidence_interval
    scores = resampled_scores(metric, labels, predictions, np.random.default_rng(0), DRAWS)
    assert scores.shape == (4, DRAWS)
    assert bootstrap_rows(scores[:2], scores[2:]) == pytest.approx((known.low, known.high), abs=0.02)


def test_the_interval_over_rows_covers_the_difference_over_all_rows() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((300, 2, 200)) < np.array([0.75, 0.70])[:, None]
    covered = []
    for one in right:
        scores = resampled_scores("accuracy", np.ones(200, int), one.astype(int), rng, 300)
        low, high = bootstrap_rows(scores[:1], scores[1:])
        covered.append(low <= 0.05 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_equal_generators_make_equal_resamples_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels, predictions = models("accuracy")
    whole = resampled_scores("accuracy", labels, predictions, np.random.default_rng(3), 50)
    monkeypatch.setattr("fastmtl.stats.BLOCK", 7 * len(labels))
    assert (resampled_scores("accuracy", labels, predictions, np.random.default_rng(3), 50) == whole).all()


def test_words_of_one_row_are_drawn_together() -> None:
    rows, labels = np.array([0, 0, 0, 1]), np.zeros(4, int)
    prediction = np.array([[0, 0, 0, 5]])  # one row all right, one all wrong
    scores = resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200, rows)
    assert set(scores[0].tolist()) == {0.0, 0.75, 1.0}  # both rows wrong, one of each, both right
    one_a_row = resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200, np.arange(4))
    assert (one_a_row == resampled_scores("accuracy", labels, prediction, np.random.default_rng(0), 200)).all()
