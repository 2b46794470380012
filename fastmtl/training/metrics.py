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

from fastmtl.data.pool import NO_WORD
from fastmtl.tasks import NEGATIVE_TAG, TaskSpec


class _Matthews(MulticlassMatthewsCorrCoef):
    """0 where all predictions or all labels are one class, as scikit-learn has it; torchmetrics smooths, to +-0.03."""

    def compute(self) -> Tensor:
        present = [int((self.confmat.sum(axis) > 0).sum()) for axis in (0, 1)]
        return super().compute() if min(present) > 1 else torch.zeros((), device=self.confmat.device)


class _TagF1(Metric):
    """Micro F1 over words, the negative tag being no class to be found (Bingel & Søgaard 2017); 0 if none was."""

    hits: Tensor
    named: Tensor

    def __init__(self, task: TaskSpec) -> None:
        super().__init__()
        self.negative = task.labels.index(NEGATIVE_TAG) if NEGATIVE_TAG in task.labels else -1
        for name in ("hits", "named"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, said: Tensor, labels: Tensor) -> None:
        is_said, is_true = said != self.negative, labels != self.negative
        self.hits += (is_true & (said == labels)).sum()
        self.named += is_said.sum() + is_true.sum()

    def compute(self) -> Tensor:
        return 2 * self.hits / self.named.clamp(min=1)


_BUILD: dict[str, Callable[[TaskSpec], Metric]] = {
    "accuracy": lambda task: MulticlassAccuracy(len(task.labels), average="micro"),
    "f1": lambda task: BinaryF1Score(),  # of the class with code 1, as GLUE does for MRPC and QQP
    "f1_micro": _TagF1,
    "f1_macro": lambda task: MulticlassF1Score(len(task.labels), average="macro"),
    "matthews": lambda task: _Matthews(len(task.labels)),
    "pearson": lambda task: PearsonCorrCoef(),
    "spearman": lambda task: SpearmanCorrCoef(),
}


def build_metrics(task: TaskSpec) -> MetricCollection:
    """The task's metrics; to be updated with `answers` and labels of what `asked` gives."""
    return MetricCollection({name: _BUILD[name](task) for name in task.metrics}, compute_groups=False)


def task_loss(logits: Tensor, labels: Tensor, task: TaskSpec) -> Tensor:
    """Mean cross-entropy, or mean squared error of a regression; logits (B, C) or (B, 1), labels (B,) float.

    Of a tagging task logits (B, L, C) and labels (B, L), or `asked` alone: the mean over words.
    """
    if task.kind == "regression":
        return functional.mse_loss(logits.squeeze(1), labels)
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=NO_WORD)


def asked(logits: Tensor, labels: Tensor, task: TaskSpec) -> tuple[Tensor, Tensor]:
    """Logits and labels of all that is to be answered: of the rows as they are, or of the words (M, C), (M,)."""
    if task.kind != "tagging":
        return logits, labels
    is_word = labels != NO_WORD
    return logits[is_word], labels[is_word]


def answers(logits: Tensor, task: TaskSpec) -> Tensor:
    """What the metrics compare with the labels: codes of classes or tags, or values; in the shape of the labels."""
    return logits.squeeze(1) if task.kind == "regression" else logits.argmax(-1)


def measure(logits: Tensor, labels: Tensor, task: TaskSpec) -> dict[str, float]:
    """All metrics of the task, headline first, and its loss over n rows, or all their words, at once."""
    logits, labels = asked(logits, labels, task)
    metrics = build_metrics(task)
    metrics.update(answers(logits, task), labels if task.kind == "regression" else labels.long())
    values = metrics.compute()
    return {**{name: float(values[name]) for name in task.metrics}, "loss": float(task_loss(logits, labels, task))}


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
