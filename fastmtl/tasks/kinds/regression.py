"""Regression: one number per row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.tasks.kinds import TaskKind

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from fastmtl.tasks.spec import TaskSpec

BINS = 5
"""Classes of equal width between the lowest and the highest value, where names of labels are asked for."""


class Regression(TaskKind):
    """Mean squared error."""

    metrics = ("pearson", "spearman")
    loss_scale = 0.5

    def check(self, task: TaskSpec) -> None:
        if task.labels:
            raise UserError(f"task {task.name!r}: a regression task has no labels; remove labels={list(task.labels)}")

    def num_outputs(self, task: TaskSpec) -> int:
        return 1

    def encode(self, value: Any, task: TaskSpec, codes: bool) -> float:
        try:
            return float(value) if math.isfinite(float(value)) else math.nan
        except (TypeError, ValueError):
            return math.nan

    def wanted(self, task: TaskSpec) -> str:
        return "use a number"

    def label_text(self, label: Any, task: TaskSpec) -> float:
        return float(label)

    def label_classes(self, labels_n: np.ndarray, task: TaskSpec) -> list[list[str]]:
        edges = np.linspace(labels_n.min(), labels_n.max(), BINS + 1)[1:-1]
        return [[f"bin {number}"] for number in np.digitize(labels_n, edges)]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(logits.squeeze(1), labels)

    def answered(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits, labels

    def predictions(self, logits: Tensor) -> Tensor:
        return logits.squeeze(1)

    def probability(self, logits: Tensor, labels: Tensor) -> None:
        """See `TaskKind`."""

    def metric(self, name: str, task: TaskSpec) -> Metric:
        from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

        return PearsonCorrCoef() if name == "pearson" else SpearmanCorrCoef()

    def table(self, logits: Any, labels: Any, task: TaskSpec) -> dict[str, Any]:
        return {
            "label": [None if np.isnan(value) else float(value) for value in labels],
            "prediction": logits[:, 0],
        }

    def coded(self, table: Any, task: TaskSpec) -> tuple[np.ndarray, np.ndarray, None]:
        return table["label"].to_numpy(float), table["prediction"].to_numpy(float), None


KIND = Regression()
