"""The fine-tuned model as a folder: predictions of each row, and the way back from the folder to a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from fastmtl.data.pool import TokenRows
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference, forward_rows, forward_tokens
from fastmtl.models.multitask import MultiTaskModel, load_weights
from fastmtl.store import WEIGHTS
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import HIDDEN_LABEL
from fastmtl.training.metrics import measure

SPECS = {"EncoderSpec": EncoderSpec, "BiLSTMSpec": BiLSTMSpec}
"""What `config.json` may name: a class path would let a downloaded folder run any code."""


def write_config(folder: Path, encoder: EncoderSpec, task: TaskSpec) -> None:
    """Write `config.json`: what `load_finetuned` needs beside `weights.safetensors`."""
    config = {"spec": type(encoder).__name__, "encoder": asdict(encoder), "task": task.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def load_finetuned(folder: str | Path) -> tuple[MultiTaskModel, TaskSpec]:
    """Load the model of a finished `finetune` folder.

    Returns:
        The model, in eval mode on the CPU, and its task. `model(batch, task.name)` gives logits (B, C), or (B, L, C) of
        a task of words; `model.encoder.spec.make_tokenizer()` gives the token ids.

    Raises:
        UserError: The folder has no weights.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    task = TaskSpec.from_dict(config["task"])
    model = MultiTaskModel(SPECS[config["spec"]](**config["encoder"]), [task])
    if not (Path(folder) / WEIGHTS).exists():
        raise UserError(f"{folder} has no weights, they were dropped; compose(...).finetuned() trains them again")
    load_weights(model, Path(folder) / WEIGHTS)
    return model.eval(), task


def predict(
    model: MultiTaskModel, task: TaskSpec, rows: TokenRows, how: Inference, path: Path,
    positions: np.ndarray | None = None,
) -> dict[str, float] | None:  # fmt: skip
    """Write one prediction per row as Parquet: `row`, `label`, `prediction`, and what else the kind of task adds.

    Args:
        model: In eval mode on `how.device`.
        task: The task whose head answers.
        rows: The rows.
        how: How forward passes run.
        path: The file to write.
        positions: (n,) the rows to predict; all by default.

    Returns:
        The task's metrics and loss over the labelled rows, or None where all labels are hidden.
    """
    positions = np.arange(len(rows)) if positions is None else positions
    known = np.flatnonzero(~rows.hidden[positions])
    logits, labels = _read(model, task, rows, how, positions)
    table: dict[str, Any] = {"row": positions, **task.of_kind.table(logits, labels, task)}
    pa.parquet.write_table(pa.table(table), path)
    if not len(known):
        return None
    if isinstance(logits, list):
        logits, labels = (np.concatenate([one[i] for i in known]) for one in (logits, labels))
        return measure(torch.from_numpy(logits), torch.from_numpy(labels), task)
    return measure(torch.from_numpy(logits[known]), torch.from_numpy(labels[known]), task)


def _read(model: MultiTaskModel, task: TaskSpec, rows: TokenRows, how: Inference, positions: np.ndarray) -> Any:
    """Logits and labels of the rows: arrays, or for a task of words lists with an array per row."""
    head = model.head(task.name)
    if task.of_kind.reads == "words":
        logits = forward_tokens(model.encoder, head, rows, positions, how, "predict")
        return logits, [_tags(rows, position) for position in positions]
    return forward_rows(model.encoder, head, rows, positions, how, "predict"), np.array(rows.labels[positions])


def _tags(rows: TokenRows, position: int) -> np.ndarray:
    """(words,) int64: codes of a row's tags, negative where they are not known."""
    assert rows.tags is not None
    tags = np.array(rows.tags[rows.offsets[position] : rows.offsets[position + 1]], dtype=np.int64)
    return tags[tags != HIDDEN_LABEL]
