"""Kinds of tasks: those of the package answer as one does, and a user's own goes from its file to its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from fastmtl.data.batching.planned import Proportional
from fastmtl.data.sources.generated import tagging_tasks
from fastmtl.errors import UserError
from fastmtl.models.encoder import Tokenizer
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.resampling import SCORES
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import HIDDEN_LABEL, TaskKind, kind_of, kinds
from fastmtl.tasks.kinds.tagging import NEGATIVE_TAG, Tagging
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.finetuned import predict
from fastmtl.training.fit import FitJob, run_fit
from tests.helpers.toy import ToySource, make_pool, row_sets

LABELS = {"classification": ("no", "yes"), "regression": (), "tagging": ("thing", NEGATIVE_TAG, "deed")}
TASKS = {kind: TaskSpec("t", kind, ("a",), labels) for kind, labels in LABELS.items()}


def test_the_package_has_these_kinds_and_each_is_one_value() -> None:
    assert set(kinds()) == set(LABELS)
    for name, task in TASKS.items():
        assert kind_of(name) is task.of_kind
        assert task.metrics == task.of_kind.metrics[:1]


@pytest.mark.parametrize(
    ("kind", "value", "codes", "encoded"),
    [
        ("classification", "yes", False, 1.0),
        ("classification", "maybe", False, None),
        ("classification", 1, True, 1.0),
        ("classification", 2, True, None),
        ("classification", "1", True, None),
        ("regression", "0.5", False, 0.5),
        ("regression", "inf", False, None),
        ("regression", None, False, None),
        ("tagging", "deed", False, 2.0),
        ("tagging", "person", False, None),
    ],
)
def test_a_label_is_encoded_or_unknown(kind: str, value: Any, codes: bool, encoded: float | None) -> None:
    got = kind_of(kind).encode(value, TASKS[kind], codes)
    assert np.isnan(got) if encoded is None else got == encoded


def test_hidden_words_are_neither_answered_nor_learned() -> None:
    task, kind = TASKS["tagging"], kind_of("tagging")
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[HIDDEN_LABEL, 0, 2], [1, HIDDEN_LABEL, HIDDEN_LABEL]])
    answered, true = kind.answered(logits, labels)
    assert true.tolist() == [0, 2, 1]
    assert torch.equal(kind.loss(answered, true), kind.loss(logits, labels))
    assert kind.predictions(answered).tolist() == answered.argmax(1).tolist()
    right = kind.probability(answered, true)
    assert right is not None
    torch.testing.assert_close(right[:, 0], answered.softmax(1)[range(3), true])
    assert kind.reads == "words"
    assert kind.num_outputs(task) == 3


@pytest.mark.parametrize("kind", LABELS)
def test_a_metric_over_a_table_is_that_over_tensors(kind: str) -> None:
    """`coded` and `weighted_score`, by which reports resample rows, against `metric`, which chooses the epoch."""
    task, of = TASKS[kind], kind_of(kind)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, task.num_outputs, generator=generator)
    labels = torch.randn(40, generator=generator) if kind == "regression" else torch.arange(40) % task.num_outputs
    rows = [slice(start, start + 4) for start in range(0, 40, 4)]
    given = ([logits[r].numpy() for r in rows], [labels[r].numpy() for r in rows])
    table = of.table(*(given if of.reads == "words" else (logits.numpy(), labels.float().numpy())), task)
    label, prediction, row = of.coded(pyarrow.table(dict(table)).to_pandas(), task)
    assert (row is None) == (of.reads == "row")
    for name in of.metrics:
        metric, weighted = of.metric(name, task), of.weighted_score(name)
        metric.update(of.predictions(logits), labels)
        assert weighted is SCORES[name]
        (score,) = weighted(label, prediction, np.ones((1, 40)))
        assert score == pytest.approx(float(metric.compute()), abs=1e-5), name


@pytest.mark.parametrize("kind", ["ranking", "builtins.dict", "tests.nowhere.Kind", "fastmtl.tasks.kinds.TaskKind", ""])
def test_a_kind_that_is_none_is_named_in_one_line(kind: str) -> None:
    with pytest.raises(UserError, match=r"^task 't': kind=.* is unknown; use one of classification, ") as refused:
        TaskSpec("t", kind, ("a",), ("no", "yes"))
    assert repr(kind) in str(refused.value)


# --- a user's own --------------------------------------------------------------------------------------------------


class MultiLabel(TaskKind):
    """Any number of labels per row, between blanks."""

    metrics = ("f1_macro", "accuracy")

    def check(self, task: TaskSpec) -> None:
        if not task.labels:
            raise UserError(f"task {task.name!r}: labels=[] is empty; list them")

    def encode(self, value: Any, task: TaskSpec, codes: bool) -> np.ndarray:
        named = str(value).split()
        known = set(named) <= set(task.labels)
        return np.array([float(label in named) if known else np.nan for label in task.labels])

    def hidden(self, task: TaskSpec) -> np.ndarray:
        return np.full(len(task.labels), np.nan)

    def label_text(self, label: Any, task: TaskSpec) -> str:
        return " ".join(name for name, on in zip(task.labels, label) if on)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, labels.float())

    def predictions(self, logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        right = torch.where(labels > 0, logits.sigmoid(), 1 - logits.sigmoid())
        return right.mean(1, keepdim=True)

    def metric(self, name: str, task: TaskSpec) -> Metric:
        cls = MultilabelF1Score if name == "f1_macro" else MultilabelAccuracy
        return cls(len(task.labels))

    def table(self, logits: Any, labels: Any, task: TaskSpec) -> dict[str, Any]:
        return {
            "label": [None if np.isnan(row).any() else self.label_text(row, task) for row in labels],
            "prediction": [self.label_text(row > 0, task) for row in logits],
        }


class Chunks(Tagging):
    """Tagging under another name: it reads words because its class says so, not for its name."""


TOPICS = TaskSpec(
    "topics", f"{__name__}.MultiLabel", ("text",), ("food", "work"), splits={"train": "train", "test": "test"}
)


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Any:
    train = {
        "text": ["the cook bought apples", "a waiter washed bowls", "apples", "the waiter"] * 6,
        "label": ["food work", "work", "food", "work"] * 6,
    }
    hidden = {"text": ["bowls", "the cook"], "label": [None, "food work"]}
    source = ToySource((TOPICS,), {"topics": {"train": train, "test": hidden}})
    return make_pool(tmp_path_factory.mktemp("topics"), source, Tokenizer(tiny))


def test_a_kind_with_several_labels_per_row_is_pooled_trained_and_predicted(
    topics: Any, tiny: Any, tmp_path: Path
) -> None:
    rows = topics.split("topics", "train")
    assert rows.labels[:4].tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]
    assert topics.split("topics", "test").hidden.tolist() == [True, False]
    assert topics.texts(np.array([0]))[0]["label"] == "food work"
    fit = FitConfig(epochs=8, batch_size=8, learning_rate=5e-3, precision="fp32", dropout=0.0)
    job = FitJob(
        title="topics", pool=topics, encoder=tiny, fit=fit, sampling=Proportional(), seed=0, pad_id=0, out=tmp_path,
        hardware=Hardware(accelerator="cpu"),
        **row_sets(topics, rows={"topics": np.arange(24)}, evaluated={"topics": np.arange(24)}),
    )  # fmt: skip
    run_fit(job)
    model = MultiTaskModel(tiny, topics.tasks).eval()
    load_weights(model, tmp_path / "weights.safetensors")
    how = Inference(0, torch.device("cpu"))
    told = predict(model, topics.tasks[0], rows, how, tmp_path / "train.parquet")
    assert told is not None
    assert told["f1_macro"] > 0.9
    table = pyarrow.parquet.read_table(tmp_path / "train.parquet").to_pylist()
    assert [row["label"] for row in table[:2]] == ["food work", "work"]
    told = predict(model, topics.tasks[0], topics.split("topics", "test"), how, tmp_path / "test.parquet")
    assert told is not None
    assert pyarrow.parquet.read_table(tmp_path / "test.parquet")["label"].to_pylist() == [None, "food work"]


def test_a_kind_with_several_labels_names_a_row_that_is_wrong(tiny: Any, tmp_path: Path) -> None:
    bad = ToySource((TOPICS,), {"topics": {"train": {"text": ["a", "b"], "label": ["food", "foot"]}}})
    with pytest.raises(UserError, match=r"'topics', split 'train': row 1 has label 'foot'; use one of food, work"):
        make_pool(tmp_path / "bad", bad, Tokenizer(tiny))
    same = ToySource((TOPICS,), {"topics": {"train": {"text": ["a", "b"], "label": ["food", "food"]}}})
    with pytest.raises(UserError, match="all 2 labels are 'food', which teaches nothing"):
        make_pool(tmp_path / "same", same, Tokenizer(tiny))


def test_a_kind_of_words_under_another_name_is_pooled_as_tagging_is(tiny: Any, tmp_path: Path) -> None:
    like = tagging_tasks()[0]
    assert like.source is not None
    own = TaskSpec(like.name, f"{__name__}.Chunks", like.text, like.labels, label=like.label, splits=like.splits)
    rows = {
        split: {name: column[:6] for name, column in next(like.source.batches(like, split)).to_pydict().items()}
        for split in like.splits
    }
    pools = [
        make_pool(tmp_path / str(i), ToySource((task,), {like.name: rows}), Tokenizer(tiny))
        for i, task in enumerate((like, own))
    ]
    tagged, chunked = (pool.split(like.name, "train") for pool in pools)
    assert chunked.tags.tolist() == tagged.tags.tolist()
    assert chunked.ids.tolist() == tagged.ids.tolist()
