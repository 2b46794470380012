"""Losses and metrics of a task, as its kind defines them, and the losses of the task discriminator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection

from fastmtl.tasks import TaskSpec


def build_metrics(task: TaskSpec) -> MetricCollection:
    """The task's metrics, to be updated with what `predicted_and_true` gives."""
    return MetricCollection({name: task.of_kind.metric(name, task) for name in task.metrics}, compute_groups=False)


def task_loss(logits: Tensor, labels: Tensor, task: TaskSpec) -> Tensor:
    """The mean loss over rows, or over words; logits (B, C) or (B, L, C)."""
    return task.of_kind.loss(logits, labels)


def predicted_and_true(logits: Tensor, labels: Tensor, task: TaskSpec) -> tuple[Tensor, Tensor]:
    """What the metrics compare, of all rows or words that have a label."""
    logits, labels = task.of_kind.answered(logits, labels)
    return task.of_kind.predictions(logits), labels


def measure(logits: Tensor, labels: Tensor, task: TaskSpec) -> dict[str, float]:
    """All metrics of the task, headline first, and its loss, over n rows or all their words at once."""
    metrics = build_metrics(task)
    metrics.update(*predicted_and_true(logits, labels, task))
    values = metrics.compute()
    return {**{name: float(values[name]) for name in task.metrics}, "loss": float(task_loss(logits, labels, task))}


def criterion(values: Mapping[str, float], metrics: Sequence[str], choose_by: str) -> float:
    """What a choice is made by, from all that was measured.

    Args:
        values: Metric -> value.
        metrics: The task's metrics, headline first.
        choose_by: `headline`, `product` of all metrics (as FastMTL's code chooses the epoch), or a metric's name.
    """
    if choose_by == "product":
        return math.prod(values[name] for name in metrics)
    return values[metrics[0] if choose_by == "headline" else choose_by]


def task_similarity_loss(logits: Tensor, task: int, loss: str, positive_weights: Tensor | None) -> Tensor:
    """The discriminator's loss for a batch of one task.

    `ce` is softmax cross-entropy. `bce` takes T independent logits against the one-hot task, averaged over B x T, with
    a positive weight per task.

    Args:
        logits: (B, T).
        task: The column of the task that the rows belong to.
        loss: `ce` or `bce`.
        positive_weights: (T,), see `positive_weights`.

    Source: Kung et al. (EMNLP 2021), DCE and DBCE.
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
