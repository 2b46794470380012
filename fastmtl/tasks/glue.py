"""The GLUE table, the only place where a data set's facts are written."""

from __future__ import annotations

from fastmtl.tasks.spec import TaskSpec


def _glue(name: str, kind: str, text: tuple[str, ...], labels: tuple[str, ...], metrics: tuple[str, ...],
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
