"""The fine-tuned model as a folder: predictions of each row, and the way back from the folder to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from fastmtl.data.pool import NO_WORD, TokenRows
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference, forward_rows, forward_tokens
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.store import WEIGHTS
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import measure

SPECS = {"EncoderSpec": EncoderSpec, "BiLSTMSpec": BiLSTMSpec}
"""What `config.json` may name: a class path would let a downloaded folder run any code."""


def write_config(folder: Path, encoder: EncoderSpec, task: TaskSpec) -> None:
    """`config.json`: what `load_finetuned` needs beside `weights.safetensors`."""
    config = {"spec": type(encoder).__name__, "encoder": vars(encoder), "task": task.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def load_finetuned(folder: str | Path) -> tuple[MultiTaskModel, TaskSpec]:
    """The model of a finished `finetune` folder, in eval mode on the CPU, and its task; `UserError` without weights.

    `model(batch, task.name)` gives logits (B, classes), or of tagging (B, L, tags);
    `model.encoder.spec.make_tokenizer()` the ids.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    task = TaskSpec.from_dict(config["task"])
    spec = SPECS[config.get("spec", "EncoderSpec")]  # folders made before there was another name none
    model = MultiTaskModel(spec(**config["encoder"]), [task])
    if not (Path(folder) / WEIGHTS).exists():
        raise UserError(f"{folder} has no weights, they were dropped; compose(...).finetuned() trains them again")
    load_weights(model, Path(folder) / WEIGHTS)
    return model.eval(), task


def predict(
    model: MultiTaskModel, task: TaskSpec, rows: TokenRows, how: Inference, path: Path, places: np.ndarray | None = None
) -> dict[str, float] | None:
    """Write one prediction a row, of all or of those at `places`, as Parquet: row, label, prediction, and `p_<label>`
    for each class; of a tagging task label and prediction are lists, a tag a word.

    Returns the task's metrics and loss over the labelled ones, or None where labels are hidden.
    """
    places = np.arange(len(rows)) if places is None else places
    if task.kind == "tagging":
        return _predict_tags(model, task, rows, how, path, places)
    values = forward_rows(model.encoder, model.heads[task.name], rows, places, how, "predict")
    logits = torch.from_numpy(values)
    labels = np.array(rows.labels[places])
    columns: dict[str, Any] = {"row": places}
    if task.kind == "classification":
        columns["label"] = [None if np.isnan(code) else task.labels[int(code)] for code in labels]
        columns["prediction"] = [task.labels[code] for code in logits.argmax(1).tolist()]
        probabilities = torch.softmax(logits, 1).numpy()
        columns |= {f"p_{name}": probabilities[:, i] for i, name in enumerate(task.labels)}
    else:
        columns["label"] = [None if np.isnan(value) else float(value) for value in labels]
        columns["prediction"] = values[:, 0]
    pa.parquet.write_table(pa.table(columns), path)
    known = np.flatnonzero(~np.isnan(labels))
    return measure(logits[known], torch.from_numpy(labels[known]), task) if len(known) else None


def _predict_tags(
    model: MultiTaskModel, task: TaskSpec, rows: TokenRows, how: Inference, path: Path, places: np.ndarray
) -> dict[str, float] | None:
    values = forward_tokens(model.encoder, model.heads[task.name], rows, places, how, "predict")
    codes = [_tags(rows, place) for place in places]
    hidden = np.isnan(rows.labels[places])
    named = [None if no else [task.labels[code] for code in row] for no, row in zip(hidden, codes)]
    said = [[task.labels[code] for code in row.argmax(1)] for row in values]
    tags = pa.list_(pa.string())
    columns = {"row": places, "label": pa.array(named, tags), "prediction": pa.array(said, tags)}
    pa.parquet.write_table(pa.table(columns), path)
    known = np.flatnonzero(~hidden)
    if not len(known):
        return None
    logits, labels = (torch.from_numpy(np.concatenate([given[i] for i in known])) for given in (values, codes))
    return measure(logits, labels, task)


def _tags(rows: TokenRows, place: int) -> np.ndarray:
    """(words,) int64: codes of a row's tags, `HIDDEN` where they are not known."""
    assert rows.tags is not None
    tags = np.array(rows.tags[rows.offsets[place] : rows.offsets[place + 1]], dtype=np.int64)
    return tags[tags != NO_WORD]
