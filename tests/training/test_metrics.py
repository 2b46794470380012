"""Metrics against scikit-learn and SciPy, losses against a hand computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import kind_of, kinds
from fastmtl.training.metrics import (
    build_metrics,
    measure,
    positive_weights,
    predicted_and_true,
    task_loss,
    task_similarity_loss,
)

TWO = TaskSpec("two", "classification", ("a",), ("no", "yes"), kind_of("classification").metrics)
THREE = TaskSpec("three", "classification", ("a",), ("x", "y", "z"), ("accuracy", "f1_macro", "matthews"))
F1_FIRST = TaskSpec("swapped", "classification", ("a",), ("no", "yes"), ("f1", "accuracy"))
TAGS = TaskSpec("tags", "tagging", ("words",), ("x", "O", "y"), kind_of("tagging").metrics)
ALL_TAGS = TaskSpec("all", "tagging", ("words",), ("x", "y", "z"), kind_of("tagging").metrics)
VALUE = TaskSpec("value", "regression", ("a",), metrics=kind_of("regression").metrics)


def drawn(classes: int, n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + torch.nn.functional.one_hot(labels, classes)
    return logits, labels.float()


def of_sklearn(name: str, truth: np.ndarray, guess: np.ndarray) -> float:
    compute: dict[str, Any] = {
        "accuracy": sklearn.metrics.accuracy_score,
        "f1": sklearn.metrics.f1_score,  # of the class with code 1
        "f1_macro": lambda t, g: sklearn.metrics.f1_score(t, g, average="macro"),
        "matthews": sklearn.metrics.matthews_corrcoef,
    }
    return float(compute[name](truth, guess))


@pytest.mark.parametrize("task", [TWO, THREE], ids=lambda task: task.name)
def test_classification_metrics_are_those_of_scikit_learn(task: TaskSpec) -> None:
    logits, labels = drawn(len(task.labels))
    values = measure(logits, labels, task)
    truth, guess = labels.numpy().astype(int), logits.argmax(1).numpy()
    for name in task.metrics:
        assert values[name] == pytest.approx(of_sklearn(name, truth, guess), abs=1e-6)


@pytest.mark.parametrize("task", [TWO, THREE], ids=lambda task: task.name)
def test_matthews_of_constant_predictions_or_labels_is_0(task: TaskSpec) -> None:
    logits, labels = drawn(len(task.labels))
    constant = torch.nn.functional.one_hot(torch.zeros(len(labels), dtype=torch.long), len(task.labels)).float()
    assert measure(constant, labels, task)["matthews"] == 0
    assert measure(logits, torch.ones_like(labels), task)["matthews"] == 0


def test_f1_is_of_the_second_label_also_where_the_first_is_more_frequent() -> None:
    # predicted yes: rows 0 and 1, one of them right; 1 of 2 true yes found: precision 1/2, recall 1/2, F1 1/2
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    values = measure(logits, torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]), TWO)
    assert values["f1"] == pytest.approx(0.5)
    assert values["accuracy"] == pytest.approx(0.6)


def test_regression_metrics_are_those_of_scipy_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    truth = np.round(rng.uniform(0, 5, size=150) * 4) / 4  # as STS-B: many equal values
    guess = truth + rng.normal(size=150)
    values = measure(torch.tensor(guess).float()[:, None], torch.tensor(truth).float(), VALUE)
    assert values["pearson"] == pytest.approx(scipy.stats.pearsonr(truth, guess)[0], abs=1e-5)
    assert values["spearman"] == pytest.approx(scipy.stats.spearmanr(truth, guess)[0], abs=1e-5)


@pytest.mark.parametrize("task", [TWO, F1_FIRST, THREE, VALUE], ids=lambda task: task.name)
def test_metrics_come_headline_first_and_before_the_loss(task: TaskSpec) -> None:
    logits, labels = drawn(task.num_outputs) if task.labels else (torch.randn(9, 1), torch.randn(9))
    assert list(measure(logits, labels, task)) == [*task.metrics, "loss"]
    assert set(build_metrics(task)) == set(task.metrics)


def said(codes: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(codes), 3).float()


def test_the_f1_of_tags_is_over_words_and_without_the_negative_tag() -> None:
    # labels x x O y O, said x O y y O: of three tags said two are right, of three there are two are found
    values = measure(said([0, 1, 2, 2, 1]), torch.tensor([0, 0, 1, 2, 1]), TAGS)
    assert values["f1_micro"] == pytest.approx(2 / 3)
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert list(values) == ["f1_micro", "accuracy", "loss"]


@pytest.mark.parametrize("task", [TAGS, ALL_TAGS], ids=lambda task: task.name)
def test_the_f1_of_tags_is_that_of_scikit_learn_over_the_positive_tags(task: TaskSpec) -> None:
    logits, labels = drawn(3)
    positive = [code for code, tag in enumerate(task.labels) if tag != "O"]
    known = sklearn.metrics.f1_score(labels, logits.argmax(1), labels=positive, average="micro")
    told = measure(logits, labels.long(), task)
    assert told["f1_micro"] == pytest.approx(known)
    assert (told["f1_micro"] == pytest.approx(told["accuracy"])) is (task is ALL_TAGS)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_negative_predictions_alone_find_nothing(labels: list[int]) -> None:
    assert measure(said([1, 1, 1]), torch.tensor(labels), TAGS)["f1_micro"] == 0


def test_tokens_that_begin_no_word_count_for_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BLC = torch.randn(2, 4, 3, generator=generator)
    labels_BL = torch.tensor([[-100, 0, -100, 2], [1, -100, -100, -100]])
    words = [(0, 1), (0, 3), (1, 0)]
    alone = torch.stack([logits_BLC[place] for place in words])
    codes = torch.tensor([0, 2, 1])
    assert measure(logits_BLC, labels_BL, TAGS) == measure(alone, codes, TAGS)
    by_hand = -torch.stack([torch.log_softmax(one, 0)[code] for one, code in zip(alone, codes)]).mean()
    assert float(task_loss(logits_BLC, labels_BL, TAGS)) == pytest.approx(float(by_hand))
    predicted, true = predicted_and_true(logits_BLC, labels_BL, TAGS)
    assert predicted.tolist() == alone.argmax(1).tolist()
    assert true.tolist() == codes.tolist()


def test_every_metric_that_a_task_may_name_can_be_built() -> None:
    assert {"classification", "regression", "tagging"} <= set(kinds())
    for kind in kinds():
        labels = () if kind == "regression" else ("x", "y")
        assert kind_of(kind).metrics
        for name in kind_of(kind).metrics:
            assert list(build_metrics(TaskSpec("t", kind, ("a",), labels, (name,)))) == [name]


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # p(no) = 3/4, then 1/2
    loss = task_loss(logits, torch.tensor([0.0, 1.0]), TWO)
    assert float(loss) == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)


def test_squared_error_by_hand_without_broadcasting_rows_against_each_other() -> None:
    loss = task_loss(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0.0, 2.0, 3.0]), VALUE)
    assert float(loss) == pytest.approx((1 + 0 + 4) / 3)


def test_the_softmax_discriminator_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])  # p(task 0) = 2/4, then 1/3
    loss = task_similarity_loss(logits, 0, "ce", None)
    assert float(loss) == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_the_sigmoid_discriminator_loss_by_hand() -> None:
    # sigmoid(log 3) = 3/4, sigmoid(0) = 1/2. The own task's term is weighted by its positive weight, the others are not
    logits = torch.tensor([[math.log(3.0), 0.0, math.log(3.0)]])
    weights = torch.tensor([2.0, 5.0, 7.0])
    expected = (2.0 * -math.log(3 / 4) - math.log(1 - 1 / 2) - math.log(1 - 3 / 4)) / 3
    assert float(task_similarity_loss(logits, 0, "bce", weights)) == pytest.approx(expected)
    unweighted = (-math.log(3 / 4) - math.log(1 / 2) - math.log(1 / 4)) / 3
    assert float(task_similarity_loss(logits, 0, "bce", None)) == pytest.approx(unweighted)


def test_a_positive_weight_is_the_rows_of_the_others_over_the_tasks_own() -> None:
    assert positive_weights([100, 300, 600]).tolist() == pytest.approx([900 / 100, 700 / 300, 400 / 600])
    assert positive_weights([5, 5]).tolist() == [1.0, 1.0]
