"""Tagging tasks are trained by the word, predicted in lists, and go through whole cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import f1_score

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.pipelines.experiment import Experiment
from fastmtl.reporting.result import selected_rows
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.finetuned import load_finetuned, predict
from tests.helpers.cells import ONE_EPOCH
from tests.helpers.fits import CPU, ROWS, assert_same_weights, finished, fit_file, weights


@pytest.fixture
def fit(tmp_path: Path, tagged_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, **changes of the job)`: the folder of a finished fit over both tasks, without any dropout."""

    usual = {
        "encoder": encoder,
        "fit": FitConfig(epochs=3, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0),
        "evaluated": {"things": np.arange(ROWS)},
    }
    return lambda name, **changes: finished(tagged_pool, tmp_path / name, **{**usual, **changes})


def epochs(folder: Path) -> list[dict[str, float]]:
    return fit_file(folder)["epochs"]


def test_validation_on_the_way_is_that_of_the_predictions(
    fit: Callable[..., Path], tagged_pool: Any, encoder: EncoderSpec
) -> None:
    folder = fit("one", fit=FitConfig(epochs=2, batch_size=6, learning_rate=1e-2, precision="fp32", dropout=0.0))
    best = max(epochs(folder), key=lambda epoch: epoch["f1_micro"])
    assert 1 / 3 < best["probability"] < 1
    model = MultiTaskModel(encoder, tagged_pool.tasks).eval()
    load_weights(model, folder / "weights.safetensors")
    task, rows = tagged_pool.tasks[0], tagged_pool.split("things", "train")
    told = predict(model, task, rows, Inference(0, torch.device("cpu")), folder / "all.parquet")
    assert told == pytest.approx({name: best[name] for name in ("f1_micro", "accuracy", "loss")}, abs=1e-5)
    table = pyarrow.parquet.read_table(folder / "all.parquet").to_pylist()
    assert [one["label"] for one in table] == [row["label"] for row in rows.texts(range(ROWS))]
    labels, said = ([*chain(*(one[key] for one in table))] for key in ("label", "prediction"))
    assert told["f1_micro"] == pytest.approx(f1_score(labels, said, labels=["thing", "deed"], average="micro"))


def test_hidden_rows_are_predicted_and_not_measured(tmp_path: Path, tagged_pool: Any, encoder: EncoderSpec) -> None:
    model, rows = MultiTaskModel(encoder, tagged_pool.tasks).eval(), tagged_pool.split("things", "test")
    how, path = Inference(0, torch.device("cpu")), tmp_path / "test.parquet"
    assert predict(model, tagged_pool.tasks[0], rows, how, path) is None
    table = pyarrow.parquet.read_table(path).to_pylist()
    assert [one["label"] for one in table] == [None] * 3
    assert [len(one["prediction"]) for one in table] == rows.words.tolist()
    assert {tag for one in table for tag in one["prediction"]} <= {"thing", "O", "deed"}


def test_micro_batches_of_rows_with_few_and_many_words_add_up_to_the_step(fit: Callable[..., Path]) -> None:
    whole, micro = fit("whole"), fit("micro", hardware=replace(CPU, accumulate=2))
    assert_same_weights(whole, micro, atol=1e-4)


@pytest.mark.slow
def test_two_ranks_train_and_measure_what_one_device_does(fit: Callable[..., Path]) -> None:
    frozen = FitConfig(epochs=2, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0,
                       freeze_embeddings=True)  # fmt: skip
    one, two = (fit(str(n), fit=frozen, hardware=Hardware(accelerator="cpu", devices=n)) for n in (1, 2))
    assert_same_weights(one, two, atol=2e-4)
    for single, both in zip(epochs(one), epochs(two)):
        assert both == pytest.approx(single, abs=1e-4)


def test_adadelta_takes_the_step_of_its_paper(fit: Callable[..., Path]) -> None:
    config = FitConfig(epochs=1, batch_size=24, learning_rate=0.1, precision="fp32", dropout=0.0, max_grad_norm=0.0,
                       schedule="constant")  # fmt: skip
    only = {"rows": {"things": np.arange(ROWS)}}
    unmoved, moved = (
        fit("adamw", fit=replace(config, learning_rate=1e-12), **only),
        fit("adadelta", fit=replace(config, optimizer="adadelta"), **only),
    )
    # The first step is rate * sqrt(e) / sqrt(0.05 g^2 + e) * g, at most rate * sqrt(e / 0.05) whatever the gradient g.
    steps = np.abs(weights(moved)["heads.things.weight"] - weights(unmoved)["heads.things.weight"])
    assert steps.max() == pytest.approx(0.1 * np.sqrt(1e-6 / 0.05), rel=0.01)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UserError, match=r"^optimizer='sgd' does not fit; use one of adamw, adadelta$"):
        FitConfig(optimizer="sgd")  # type: ignore[arg-type]


# --- whole cells -----------------------------------------------------------------------------------------------------

TASKS = """
tasks:
- {name: things, kind: tagging, text: words, label: tags, labels: [O, thing], splits: {train: a.jsonl, validation: a.jsonl, test: a.jsonl}}
- {name: parts, kind: tagging, text: words, label: tags, labels: [D, N, V], splits: {train: b.jsonl}}
- {name: mood, kind: classification, text: text, labels: [good, bad], splits: {train: c.jsonl}}
"""  # noqa: E501
CELL = ["data=files", "data.leakage=report", "primary=things", "budget=20", "proxy.examples_per_task=8", "trainer=cpu",
        *ONE_EPOCH]  # fmt: skip
BILSTM = ["encoder=bilstm", "encoder.tokenizer=tiny", "encoder.hidden_size=8", "encoder.layers=1"]


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Experiment]:
    """`cell(*overrides)`: of a tagging primary beside a tagging and a classification task."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    kinds = {"the": "D", "cook": "N", "apples": "N", "bought": "V"}

    def rows() -> list[list[str]]:
        """Others for each task: a row that the primary has too would be no candidate."""
        return [rng.choice(list(kinds), size=rng.integers(5, 12)).tolist() for _ in range(40)]

    tagged = {
        "a": [{"words": row, "tags": ["thing" if kinds[word] == "N" else "O" for word in row]} for row in rows()],
        "b": [{"words": row, "tags": [kinds[word] for word in row]} for row in rows()],
        "c": [{"text": " ".join(row), "label": "good" if "cook" in row else "bad"} for row in rows()],
    }
    for name, lines in tagged.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "tasks.yaml").write_text(TASKS)
    own = [f"data.config={folder / 'tasks.yaml'}", f"paths.output={folder}"]
    return lambda *overrides: compose(*CELL, *own, *overrides)


@pytest.mark.parametrize(
    ("selection", "encoder"),
    [
        ("none", BILSTM),
        ("feature_similarity", ["encoder=tiny"]),
        pytest.param("feature_similarity", BILSTM, marks=pytest.mark.slow),
    ],
    ids=["none, bilstm", "feature_similarity, tiny", "feature_similarity, bilstm"],
)
def test_a_cell_with_a_tagging_primary(cell: Callable[..., Experiment], selection: str, encoder: list[str]) -> None:
    exp = cell(*encoder, f"selection={selection}")
    assert [a.kind for a in exp.artifacts("report")][-1] == "test"  # its rows have labels
    metrics = exp.finetune().read("metrics.json")
    rows = pyarrow.parquet.read_table(exp.finetune().path / "validation.parquet").to_pylist()
    labels, predictions = ([*chain(*(row[key] for row in rows))] for key in ("label", "prediction"))
    f1 = f1_score(labels, predictions, labels=["thing"], average="micro", zero_division=0)
    assert metrics["validation"]["f1_micro"] == pytest.approx(f1)
    assert exp.test().read("metrics.json")["test"] == pytest.approx(metrics["validation"])  # the same rows
    model, task = load_finetuned(exp.finetune().path)
    assert model.heads["things"].out_features == len(task.labels) == 2
    if selection != "none":
        shown = selected_rows(exp)
        assert len(shown) == 20
        assert {row["task"] for row in shown} <= {"parts", "mood"}


@pytest.mark.slow
@pytest.mark.parametrize("change", [["weighting=gradnorm"], ["weighting=uncertainty"], ["sampling=ucb1"]], ids=str)
def test_weightings_and_learned_orders_take_tagging_tasks(cell: Callable[..., Experiment], change: list[str]) -> None:
    usual, changed = (cell("encoder=tiny", "selection=random", *more).multitask() for more in ([], change))
    assert usual is not None
    assert changed is not None
    before, after = weights(usual.path), weights(changed.path)
    assert all(np.isfinite(values).all() for values in after.values())
    assert {name for name in before if name.startswith("heads.") and not np.array_equal(before[name], after[name])}


@pytest.mark.slow
def test_the_experiment_on_task_relations_runs(tmp_path: Path) -> None:
    exp = compose(
        "experiment=relations_paper", "primary=group", "encoder.tokenizer=tiny", "data.rows_per_task=64",
        "multitask.fit.epochs=1", "finetune.fit.epochs=1", "trainer=cpu", f"paths.output={tmp_path}",
    )  # fmt: skip
    assert exp.options()["multitask.fit.optimizer"] == "adadelta"
    assert np.isfinite(exp.finetune().read("metrics.json")["validation"]["loss"])
