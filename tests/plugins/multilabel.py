"""A kind of task: any number of labels per row, in one cell as "red|round", and "-" for a row without any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import TaskKind, WeightedScore

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

BETWEEN, NONE = "|", "-"


class MultiLabel(TaskKind):
    """Binary cross-entropy over C labels; a label is predicted where its logit is above 0."""

    metrics = ("f1_micro", "f1_macro")

    def check(self, task: TaskSpec) -> None:
        if not 1 <= len(set(task.labels)) == len(task.labels):
            raise UserError(f"task {task.name!r}: labels={list(task.labels)} must list distinct names")

    def encode(self, value: Any, task: TaskSpec, codes: bool) -> np.ndarray:
        given = [] if value == NONE else str(value).split(BETWEEN)
        if not set(given) <= set(task.labels):
            return self.hidden(task)
        return np.array([float(label in given) for label in task.labels])

    def hidden(self, task: TaskSpec) -> np.ndarray:
        return np.full(len(task.labels), math.nan)

    def wanted(self, task: TaskSpec) -> str:
        return f"use some of {', '.join(task.labels)} with {BETWEEN} between them, or {NONE} for none"

    def label_text(self, label: Any, task: TaskSpec) -> str:
        return BETWEEN.join(name for name, is_there in zip(task.labels, label) if is_there) or NONE

    def label_classes(self, labels_n: np.ndarray, task: TaskSpec) -> list[list[str]]:
        return [self.label_text(row, task).split(BETWEEN) for row in labels_n]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def answered(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits, labels.long()

    def predictions(self, logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        import torch

        return torch.sigmoid(logits * (2 * labels - 1))

    def metric(self, name: str, task: TaskSpec) -> Metric:
        from torchmetrics import classification

        average = "micro" if name == "f1_micro" else "macro"
        return classification.MultilabelF1Score(len(task.labels), average=average)

    def table(self, logits: Any, labels: Any, task: TaskSpec) -> Mapping[str, Any]:
        chances = 1 / (1 + np.exp(-logits))
        return {
            "label": [None if np.isnan(row).any() else self.label_text(row, task) for row in labels],
            "prediction": [self.label_text(row > 0, task) for row in logits],
            **{f"p_{name}": chances[:, i] for i, name in enumerate(task.labels)},
        }

    def weighted_score(self, name: str) -> WeightedScore | None:
        """Micro F1 is the F1 of all decisions, each of which counts as often as its row."""
        from fastmtl.resampling import SCORES

        return SCORES["f1"] if name == "f1_micro" else None

    def coded(self, table: Any, task: TaskSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """0 or 1 for each label of each row."""
        label, prediction = (
            np.array([self.encode(text, task, codes=False) for text in table[column]]).ravel()
            for column in ("label", "prediction")
        )
        return label, prediction, np.repeat(np.arange(len(table)), len(task.labels))
