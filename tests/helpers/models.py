"""Finetune folders of models that nobody trained, for tests of what is done with them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fastmtl.data.sample import vocabulary
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.store import WEIGHTS
from fastmtl.tasks import TaskSpec
from fastmtl.training.finetuned import write_config

TASKS = {
    task.name: task
    for task in (
        TaskSpec("tickets", "classification", ("message",), ("billing", "delivery", "other")),
        TaskSpec("pairs", "classification", ("first", "second"), ("no", "yes")),
        TaskSpec("stars", "regression", ("message",)),
        TaskSpec("parts", "tagging", ("words",), ("O", "thing", "deed"), label="tags"),
    )
}
"""One task of each kind."""


def finetuned(folder: Path, task: TaskSpec, spec: Any) -> Path:
    """A finetune folder with weights that are random, biases and layer norms too, so that none can be left out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MultiTaskModel(spec, [task])
        state = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True)
    save_file(state, folder / WEIGHTS)
    write_config(folder, spec, task)
    return folder


def texts(task: TaskSpec, rows: int = 100, longest: int = 30) -> list[Any]:
    """Rows of the form that the task takes, of very different lengths."""
    rng, known = random.Random(0), vocabulary()

    def words() -> list[str]:
        return rng.choices(known, k=rng.randint(1, longest))

    if task.kind == "tagging":
        return [words() for _ in range(rows)]
    if len(task.text) == 2:
        return [(" ".join(words()), " ".join(words())) for _ in range(rows)]
    return [" ".join(words()) for _ in range(rows)]
