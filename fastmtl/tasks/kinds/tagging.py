"""Tagging: one tag per word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.tasks.kinds import HIDDEN_LABEL, TaskKind
from fastmtl.tasks.kinds.classification import check_labels, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from fastmtl.tasks.spec import TaskSpec

NEGATIVE_TAG = "O"
"""The tag of words that a task says nothing of: no class for `f1_micro`."""


class Tagging(TaskKind):
    """Softmax cross-entropy over the tags of each word; a word is read at its first token."""

    metrics = ("f1_micro", "accuracy")
    reads = "words"

    def check(self, task: TaskSpec) -> None:
        if len(task.text) != 1:
            raise UserError(f"task {task.name!r}: text={list(task.text)}; tagging takes one column, that of the words")
        check_labels(task)

    def label_classes(self, labels_n: np.ndarray, task: TaskSpec) -> list[list[str]]:
        """See `TaskKind`; `labels_n` is a list of (words,)."""
        return [[task.labels[int(tag)] for tag in row if tag >= 0] for row in labels_n]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels)

    def answered(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `TaskKind`: the words (M, C), (M,) of all rows."""
        is_word = labels != HIDDEN_LABEL
        return logits[is_word], labels[is_word].long()

    def metric(self, name: str, task: TaskSpec) -> Metric:
        from torchmetrics.classification import MulticlassAccuracy

        return _micro_f1(task) if name == "f1_micro" else MulticlassAccuracy(len(task.labels), average="micro")

    def table(self, logits: Any, labels: Any, task: TaskSpec) -> dict[str, Any]:
        """See `TaskKind`; a list of tags per row."""
        import pyarrow as pa

        tags = pa.list_(pa.string())
        named = [None if (codes < 0).any() else [task.labels[int(code)] for code in codes] for codes in labels]
        predicted = [[task.labels[code] for code in row.argmax(1)] for row in logits]
        return {"label": pa.array(named, tags), "prediction": pa.array(predicted, tags)}

    def coded(self, table: Any, task: TaskSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `TaskKind`; the negative tag has the code -1."""
        words = table.reset_index(drop=True).explode(["label", "prediction"])
        codes = {NEGATIVE_TAG: -1} | {tag: i for i, tag in enumerate(sorted({*words["label"]} - {NEGATIVE_TAG}))}
        # A tag that no label has is wrong, whichever it is.
        label, prediction = (words[key].map(codes).fillna(len(codes)).to_numpy(int) for key in ("label", "prediction"))
        return label, prediction, words.index.to_numpy()


def _micro_f1(task: TaskSpec) -> Metric:
    """Micro F1 over words, the negative tag being no class to be found (Bingel & Søgaard 2017); 0 if none was."""
    import torch
    from torchmetrics import Metric

    class TagF1(Metric):
        hits: Tensor
        named: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.negative = task.labels.index(NEGATIVE_TAG) if NEGATIVE_TAG in task.labels else -1
            for name in ("hits", "named"):
                self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

        def update(self, predicted: Tensor, labels: Tensor) -> None:
            is_predicted, is_true = predicted != self.negative, labels != self.negative
            self.hits += (is_true & (predicted == labels)).sum()
            self.named += is_predicted.sum() + is_true.sum()

        def compute(self) -> Tensor:
            return 2 * self.hits / self.named.clamp(min=1)

    return TagF1()


KIND = Tagging()
