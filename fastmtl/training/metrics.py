"""Losses and metrics of a task, by its kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

from fastmtl.tasks import TaskSpec


class _Matthews(MulticlassMatthewsCorrCoef):
    """0 where all predictions or all labels are one class, as scikit-learn has it; torchmetrics smooths, to +-0.03."""

    def compute(self) -> Tensor:
        present = [int((self.confmat.sum(axis) > 0).sum()) for axis in (0, 1)]
        return super().compute() if min(present) > 1 else torch.zeros((), device=self.confmat.device)


_BUILD: dict[str, Callable[[TaskSpec], Metric]] = {
    "accuracy": lambda task: MulticlassAccuracy(len(task.labels), average="micro"),
    "f1": lambda task: BinaryF1Score(),  # of the class with code 1, as GLUE does for MRPC and QQP
    "f1_macro": lambda task: MulticlassF1Score(len(task.labels), average="macro"),
    "matthews": lambda task: _Matthews(len(task.labels)),
    "pearson": lambda task: PearsonCorrCoef(),
    "spearman": lambda task: SpearmanCorrCoef(),
}


def build_metrics(task: TaskSpec) -> MetricCollection:
    """The task's metrics, headline first; to be updated with `answers` and labels."""
    return MetricCollection({name: _BUILD[name](task) for name in task.metrics}, compute_groups=False)


def task_loss(logits: Tensor, labels: Tensor, task: TaskSpec) -> Tensor:
    """Mean cross-entropy, or mean squared error of a regression; logits (B, C) or (B, 1), labels (B,) float."""
    if task.kind == "regression":
        return functional.mse_loss(logits.squeeze(1), labels)
    return functional.cross_entropy(logits, labels.long())


def answers(logits: Tensor, task: TaskSpec) -> Tensor:
    """What the metrics compare with the labels: class codes (B,), or values (B,)."""
    return logits.squeeze(1) if task.kind == "regression" else logits.argmax(1)


def measure(logits: Tensor, labels: Tensor, task: TaskSpec) -> dict[str, float]:
    """All metrics of the task and its loss over n rows at once."""
    metrics = build_metrics(task)
    metrics.update(answers(logits, task), labels if task.kind == "regression" else labels.long())
    values = {name: float(value) for name, value in metrics.compute().items()}
    return {**values, "loss": float(task_loss(logits, labels, task))}


def task_similarity_loss(logits: Tensor, task: int, loss: str, positive_weights: Tensor | None) -> Tensor:
    """The discriminator's loss for a batch of one task; logits (B, T).

    `ce`: softmax cross-entropy. `bce`: T independent logits against the one-hot task, averaged over B x T, with a
    positive weight per task (FastMTL, DCE and DBCE).
    """
    if loss == "ce":
        return functional.cross_entropy(logits, torch.full((len(logits),), task, device=logits.device))
    target = torch.zeros_like(logits)
    target[:, task] = 1.0
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=positive_weights)


def positive_weights(counts: list[int]) -> Tensor:
    """(T,) float32: rows of all other tasks over rows of the task. In rows, not batches (FastMTL counted batches)."""
    n_T = torch.tensor(counts, dtype=torch.float32)
    return (n_T.sum() - n_T) / n_T
