"""What a kind of task is. A kind is one module of this package, or any class that a task names by its path."""

from __future__ import annotations

import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import isabstract
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fastmtl.errors import UserError
from fastmtl.resampling import SCORES, WeightedScore

if TYPE_CHECKING:  # torch takes seconds to import; declaring a task does without it
    from torch import Tensor
    from torchmetrics import Metric

    from fastmtl.tasks.spec import TaskSpec

HIDDEN_LABEL = -100
"""In place of a label that is not to be learned: what PyTorch's losses ignore."""


class TaskKind(ABC):
    """Labels, loss, predictions and metrics of all tasks of a kind. B rows, L tokens, C outputs, n rows of a table."""

    metrics: ClassVar[tuple[str, ...]]
    """Names of its metrics; the first is the default headline."""
    reads: ClassVar[Literal["row", "words"]] = "row"
    """Whether the head reads a row's pooled feature, or the state in which each word begins."""
    loss_scale: ClassVar[float] = 1.0
    """Factor of the loss under uncertainty weighting (Kendall et al. 2018): 1, or 1/2 for a squared error."""

    # --- labels --------------------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, task: TaskSpec) -> None:
        """Raise a `UserError` if the task's columns and labels do not suit its kind."""

    def num_outputs(self, task: TaskSpec) -> int:
        """Width of the task's head."""
        return len(task.labels)

    def encode(self, value: Any, task: TaskSpec, codes: bool) -> Any:
        """A label (of a row or a word) as a number, or as an array of numbers; NaN where it is unknown.

        With `codes` the source holds class codes instead of names.
        """
        if codes:
            return float(value) if value in range(len(task.labels)) else math.nan
        text = str(value)
        return float(task.labels.index(text)) if text in task.labels else math.nan

    def hidden(self, task: TaskSpec) -> Any:
        """The label of a row whose label is not known: NaN in the shape that `encode` gives."""
        return math.nan

    def wanted(self, task: TaskSpec) -> str:
        """What a label may be, for an error message."""
        return f"use one of {', '.join(task.labels)}"

    def label_text(self, label: Any, task: TaskSpec) -> Any:
        """An encoded label as people read it."""
        return task.labels[int(label)]

    def label_classes(self, labels_n: np.ndarray, task: TaskSpec) -> list[list[str]]:
        """The labels of each row as names, for the features of a task's data (Bingel & Søgaard 2017)."""
        return [[task.labels[int(code)]] for code in labels_n]

    # --- training ------------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of logits (B, C) or (B, L, C) against labels as `encode` or `answered` gives them."""

    def answered(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of all that is to be answered, in the form that the metrics take."""
        return logits, labels.long()

    def predictions(self, logits: Tensor) -> Tensor:
        """What the metrics compare with the labels."""
        return logits.argmax(-1)

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor | None:
        """Predicted probability of each right class, or None where there is none."""
        import torch

        return torch.softmax(logits, 1).gather(1, labels.long().unsqueeze(1))

    # --- metrics -------------------------------------------------------------------------------------------------

    @abstractmethod
    def metric(self, name: str, task: TaskSpec) -> Metric:
        """The metric of that name, over predictions and labels as `answered` gives them."""

    def weighted_score(self, name: str) -> WeightedScore | None:
        """The same metric over rows that count several times; None where rows cannot be resampled."""
        return SCORES.get(name)

    # --- tables --------------------------------------------------------------------------------------------------

    @abstractmethod
    def table(self, logits: Any, labels: Any, task: TaskSpec) -> Mapping[str, Any]:
        """Columns `label`, `prediction` and others of a table of predictions.

        Args:
            logits: (n, C) float32; for a kind that reads words a list of (words, C).
            labels: (n,) or (n, C) float32, NaN where hidden; for a kind that reads words a list of (words,).
            task: The task.
        """

    def coded(self, table: Any, task: TaskSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Labels and predictions of the table's labelled rows for `weighted_score`, and the row of each word."""
        import pandas

        label, prediction = (pandas.Categorical(table[key], task.labels).codes for key in ("label", "prediction"))
        return label, prediction, None


@cache
def kind_of(name: str, task: str = "") -> TaskKind:
    """The kind of that name, or the class at that path; `task` is for the error message.

    Raises:
        UserError: There is no such kind.
    """
    known = kinds()
    if name in known:
        return import_module(f"{__name__}.{name}").KIND
    module, _, cls = name.rpartition(".")
    try:
        found = getattr(import_module(module), cls)
    except (ImportError, AttributeError, ValueError):
        found = None
    # What a folder of weights names is not called unless it is a kind.
    if not isinstance(found, type) or not issubclass(found, TaskKind) or isabstract(found):
        known_ones = f"{', '.join(known)}, or the path of a class of yours"
        raise UserError(f"task {task!r}: kind={name!r} is unknown; use one of {known_ones}")
    return found()


@cache
def kinds() -> Sequence[str]:
    """Names of the kinds in this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
