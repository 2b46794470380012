"""The fine-tuned model as a folder: predictions of each row, and the way back from the folder to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from fastmtl.data.pool import TokenRows
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference, forward_rows
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import measure

SPECS = {"EncoderSpec": EncoderSpec, "BiLSTMSpec": BiLSTMSpec}
"""What `config.json` may name: a class path would let a downloaded folder run any code."""


def write_config(folder: Path, encoder: EncoderSpec, task: TaskSpec) -> None:
    """`config.json`: what `load_finetuned` needs beside `weights.safetensors`."""
    config = {"spec": type(encoder).__name__, "encoder": vars(encoder), "task": task.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def load_finetuned(folder: str | Path) -> tuple[MultiTaskModel, TaskSpec]:
    """The model of a finished `finetune` folder, in eval mode on the CPU, and its task.

    `model(batch, task.name)` gives logits (B, classes); `model.encoder.spec.make_tokenizer()` the ids.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    task = TaskSpec.from_dict(config["task"])
    spec = SPECS[config.get("spec", "EncoderSpec")]  # folders made before there was another name none
    model = MultiTaskModel(spec(**config["encoder"]), [task])
    load_weights(model, Path(folder) / "weights.safetensors")
    return model.eval(), task


def predict(
    model: MultiTaskModel, task: TaskSpec, rows: TokenRows, how: Inference, path: Path
) -> dict[str, float] | None:
    """Write one prediction a row as Parquet: row, label, prediction, and `p_<label>` for each class.

    Returns the task's metrics and loss over the labelled rows, or None where labels are hidden.
    """
    values = forward_rows(model.encoder, model.heads[task.name], rows, np.arange(len(rows)), how, "predict")
    logits = torch.from_numpy(values)
    labels = np.array(rows.labels)
    columns: dict[str, Any] = {"row": np.arange(len(rows))}
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
