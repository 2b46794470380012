"""What a task is: `TaskSpec`, and the GLUE table, the only place where a data set's facts are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fastmtl.errors import UserError

Kind = Literal["classification", "regression", "tagging"]

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "matthews"),
    "regression": ("pearson", "spearman"),
    "tagging": ("f1_micro", "accuracy"),
}
"""Metric names a kind of task may report; the first is the default headline."""

NEGATIVE_TAG = "O"
"""Of words that a tagging task says nothing of: no class for `f1_micro`."""


@dataclass(frozen=True)
class TaskSpec:
    """One task: which columns hold it, what its labels mean, and how it is measured.

    `labels` are the names of classes or tags in code order (empty for regression). `metrics[0]` is the headline metric.
    A tagging task has one text column, the words of a row, and a label column with a tag for each of them.
    `splits` maps train, validation, test to the source's own split names or files; validation and test
    may be absent for a task that only ever serves as auxiliary. `flag` names an optional 0/1 column that says
    whether a row is truly relevant to the primary: no selector sees it, only the report reads it.
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    label: str = "label"
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "validation": "validation"})
    flag: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise UserError(f"task {self.name!r}: kind={self.kind!r} is unknown; use one of {', '.join(METRICS)}")
        if not self.name or "." in self.name:
            raise UserError(f"task {self.name!r}: a name must not be empty or hold a dot; rename the task")
        if len(self.text) not in (1, 2):
            raise UserError(f"task {self.name!r}: text={list(self.text)} must name one or two columns")
        if self.kind == "tagging" and len(self.text) != 1:
            raise UserError(f"task {self.name!r}: text={list(self.text)}; tagging takes one column, that of the words")
        if self.kind != "regression" and not 2 <= len(set(self.labels)) == len(self.labels):
            raise UserError(f"task {self.name!r}: labels={list(self.labels)} must list two or more distinct names")
        if self.kind == "regression" and self.labels:
            raise UserError(f"task {self.name!r}: a regression task has no labels; remove labels={list(self.labels)}")
        if not self.metrics:
            object.__setattr__(self, "metrics", METRICS[self.kind][:1])
        for metric in self.metrics:
            if metric not in METRICS[self.kind]:
                known = ", ".join(METRICS[self.kind])
                raise UserError(f"task {self.name!r}: metric {metric!r} does not fit {self.kind}; use one of {known}")
        if "f1" in self.metrics and len(self.labels) > 2:
            raise UserError(f"task {self.name!r}: metric 'f1' needs two labels; use f1_macro for {len(self.labels)}")
        unknown = set(self.splits) - {"train", "validation", "test"}
        if unknown or not {"train", "test"} & set(self.splits):  # test alone: read by another task's model
            raise UserError(
                f"task {self.name!r}: splits={sorted(self.splits)}; train is needed, validation and test may follow"
            )

    @property
    def num_outputs(self) -> int:
        """Width of the task's head: one logit a class or tag, or one value."""
        return len(self.labels) or 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for manifests and identities."""
        return {**asdict(self), "splits": dict(self.splits)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSpec:
        """The inverse of `to_dict`; accepts what YAML and JSON give."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise UserError(f"task {values.get('name')!r}: unknown key {sorted(unknown)[0]!r}; the keys are {known}")
        missing = {"name", "kind", "text"} - set(values)
        if missing:
            raise UserError(f"task {values.get('name')!r}: key {sorted(missing)[0]!r} is missing")
        plain = dict(values)
        for key in ("text", "labels", "metrics"):
            given = plain.get(key) or ()
            plain[key] = (given,) if isinstance(given, str) else tuple(str(value) for value in given)
        return cls(**plain)


def _glue(name: str, kind: Kind, text: tuple[str, ...], labels: tuple[str, ...], metrics: tuple[str, ...],
          validation: str = "validation", test: str = "test") -> TaskSpec:  # fmt: skip
    return TaskSpec(
        name, kind, text, labels, metrics, splits={"train": "train", "validation": validation, "test": test}
    )


_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "not_entailment")

# Columns, label codes and metrics of the Hub data set `nyu-mll/glue` (Wang et al. 2019), in FastMTL's task order.
# WNLI is left out of training there, and so is not in `conf/data/glue.yaml` either; AutoSeM uses it.
GLUE: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        _glue("mnli", "classification", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"),
              ("accuracy",), "validation_matched", "test_matched"),
        _glue("rte", "classification", _PAIR, _NLI, ("accuracy",)),
        _glue("qqp", "classification", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
        _glue("qnli", "classification", ("question", "sentence"), _NLI, ("accuracy",)),
        _glue("mrpc", "classification", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
        _glue("sst2", "classification", ("sentence",), ("negative", "positive"), ("accuracy",)),
        _glue("cola", "classification", ("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
        _glue("stsb", "regression", _PAIR, (), ("pearson", "spearman")),
        _glue("wnli", "classification", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
    )
}  # fmt: skip
