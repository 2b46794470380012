"""Classification: one of two or more classes per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.tasks.kinds import HIDDEN_LABEL, TaskKind

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from fastmtl.tasks.spec import TaskSpec


class Classification(TaskKind):
    """Softmax cross-entropy over the classes."""

    metrics = ("accuracy", "f1", "f1_macro", "matthews")

    def check(self, task: TaskSpec) -> None:
        check_labels(task)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels)

    def metric(self, name: str, task: TaskSpec) -> Metric:
        """See `TaskKind`; F1 is of the class with code 1, as GLUE does for MRPC and QQP."""
        from torchmetrics import classification

        if name == "f1":
            return classification.BinaryF1Score()
        if name == "matthews":
            return _matthews(len(task.labels))
        if name == "f1_macro":
            return classification.MulticlassF1Score(len(task.labels), average="macro")
        return classification.MulticlassAccuracy(len(task.labels), average="micro")

    def table(self, logits: Any, labels: Any, task: TaskSpec) -> dict[str, Any]:
        """See `TaskKind`; `p_<label>` is the probability of each class."""
        import torch

        values = torch.from_numpy(logits)
        probabilities = torch.softmax(values, 1).numpy()
        return {
            "label": [None if np.isnan(code) else task.labels[int(code)] for code in labels],
            "prediction": [task.labels[code] for code in values.argmax(1).tolist()],
            **{f"p_{name}": probabilities[:, i] for i, name in enumerate(task.labels)},
        }


def check_labels(task: TaskSpec) -> None:
    """A `UserError` unless the task lists two or more distinct labels."""
    if not 2 <= len(set(task.labels)) == len(task.labels):
        raise UserError(f"task {task.name!r}: labels={list(task.labels)} must list two or more distinct names")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows, or over the words of rows (B, L, C), less those whose label is hidden."""
    from torch.nn import functional

    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=HIDDEN_LABEL)


def _matthews(classes: int) -> Metric:
    """0 where all predictions or all labels are one class, as scikit-learn has it; torchmetrics smooths, to +-0.03."""
    import torch
    from torchmetrics.classification import MulticlassMatthewsCorrCoef

    class Matthews(MulticlassMatthewsCorrCoef):
        def compute(self) -> Tensor:
            present = [int((self.confmat.sum(axis) > 0).sum()) for axis in (0, 1)]
            return super().compute() if min(present) > 1 else torch.zeros((), device=self.confmat.device)

    return Matthews(classes)


KIND = Classification()
