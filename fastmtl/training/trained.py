"""A trained model in use: from the folder of a run, or an exported one, to labels for new texts, without a trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fastmtl.data.columns import HIDDEN
from fastmtl.data.pool import TokenRows
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, tokenizer_of
from fastmtl.models.inference import Inference, Precision, forward_rows, forward_tokens
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.progress import progress
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import HIDDEN_LABEL
from fastmtl.training.config import Hardware, resolve_precision
from fastmtl.training.finetuned import load_finetuned

if TYPE_CHECKING:
    from pandas import DataFrame

EXPORTED, HEADS = "fastmtl.json", "fastmtl.safetensors"
"""In an exported folder: the encoder's options and the task; and the weights that Transformers' class has elsewhere."""

BATCH_ROWS = 1024
"""Rows that are sorted by length and read together."""

Text = str | Sequence[str]
"""A text, a pair of texts, or for tagging the words of a row."""


@dataclass(frozen=True)
class Model:
    """A trained model; `task` has its labels, and `inner(batch, task.name)` gives logits."""

    folder: Path
    inner: MultiTaskModel
    task: TaskSpec
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of the run, if it was loaded from there."""

    def predict(
        self, texts: Sequence[Text], *, batch_size: int = BATCH_ROWS, precision: Precision | Literal["auto"] = "fp32"
    ) -> DataFrame:
        """Labels and probabilities of new texts, on the GPU if there is one.

        Args:
            texts: n strings, pairs of strings (tuples), or for tagging lists of words.
            batch_size: Rows that are sorted by length and read together; it moves no more than the last digits.
            precision: Of weights and activations; `auto` takes bf16 where the processor is fast at it.

        Returns:
            n rows in the order of `texts`. `prediction` is the label's name, or the value of a regression, and
            `p_<label>` the probability of each label. For tagging, `prediction` and `probability` are lists with an
            entry for each word, None for words beyond the encoder's `max_length`.

        Raises:
            UserError: A text is blank or not of the form that the task takes.
        """
        import pandas

        if isinstance(texts, str):
            raise UserError("predict takes a list of texts, not one text; give [text]")
        texts = list(texts)
        for place, text in enumerate(texts):
            if problem := self.problem(text):
                raise UserError(f"text {place} {problem}")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is not positive; use {BATCH_ROWS}")
        kind, hardware = self.task.of_kind, Hardware()
        how = Inference(
            tokenizer_of(self.inner.encoder.spec).pad_id, hardware.device, resolve_precision(precision, hardware)
        )
        self.inner.to(how.device)
        parts = []
        with progress("predict" if len(texts) > batch_size else "", "row", len(texts)) as bar:
            for start in range(0, len(texts), batch_size):
                parts.append(self._logits(texts[start : start + batch_size], how))
                bar.update(len(parts[-1]))
        if kind.reads == "words":
            logits: Any = list(chain(*parts))
            return pandas.DataFrame(self._tags(texts, logits))
        logits = np.concatenate([np.empty((0, self.task.num_outputs), np.float32), *parts])
        hidden = np.array([kind.hidden(self.task)] * len(texts), dtype=np.float32)
        table = dict(kind.table(logits, hidden, self.task))
        del table["label"]
        return pandas.DataFrame(table)

    def problem(self, text: Any) -> str | None:
        """Why `predict` does not take a text, as the end of a sentence; None if it does."""
        words, pair = self.task.of_kind.reads == "words", len(self.task.text) == 2
        parts = text if words or pair else [text]
        is_list = isinstance(parts, Sequence) and not isinstance(parts, str) and all(isinstance(p, str) for p in parts)
        if not is_list or (pair and len(parts) != 2):
            wanted = "lists of words" if words else "pairs of texts" if pair else "texts"
            return f"is {text!r:.40}; task {self.task.name!r} takes {wanted}"
        return None if parts and all(part.strip() for part in parts) else "is blank"

    def _logits(self, texts: Sequence[Text], how: Inference) -> Any:
        """float32 (n, C), or for a task of words a list of (words, C)."""
        head, rows = self.inner.heads[self.task.name], token_rows(texts, self.task, self.inner.encoder.spec)
        read = forward_tokens if self.task.of_kind.reads == "words" else forward_rows
        return read(self.inner.encoder, head, rows, np.arange(len(rows)), how, "")

    def _tags(self, texts: Sequence[Text], logits: list[np.ndarray]) -> dict[str, list[Any]]:
        """The label of each word and its probability."""
        table: dict[str, list[Any]] = {"prediction": [], "probability": []}
        for words, row in zip(texts, logits):
            values, codes = torch.softmax(torch.from_numpy(row), 1).max(1)
            cut = [None] * (len(words) - len(row))
            table["prediction"].append([*(self.task.labels[code] for code in codes.tolist()), *cut])
            table["probability"].append([*(float(str(value)) for value in values.numpy()), *cut])
        return table


def token_rows(texts: Sequence[Text], task: TaskSpec, encoder: Any) -> TokenRows:
    """Token ids of texts in memory, as a pool has them of a split without labels."""
    tokenize, tags = tokenizer_of(encoder), None
    if task.of_kind.reads == "words":
        ids, begins = tokenize.words([list(words) for words in texts])
        starts = [len(row) for row in ids]
        tags = np.where(np.array([*chain(*begins)]) >= 0, HIDDEN, HIDDEN_LABEL).astype(np.int16)
    else:
        first, *second = zip(*texts) if len(task.text) == 2 else (texts,)
        ids, starts = tokenize(list(first), list(second[0]) if second else None)
    return TokenRows(
        ids=np.fromiter(chain.from_iterable(ids), np.uint32),
        offsets=np.cumsum([0, *map(len, ids)]),
        second=np.array(starts, np.uint16),
        labels=np.full(len(ids), np.nan, np.float32),
        folder=Path(),
        split="",
        tags=tags,
    )


# --- from a folder ---------------------------------------------------------------------------------------------------


def load(model: str | Path | Mapping[str, Any]) -> Model:
    """The model of a finished run, ready to `predict`; only JSON and safetensors are read, and no code.

    Args:
        model: The folder of a run or its `result.json`, read or not; the folder of its artifact,
            `outputs/artifacts/finetune/KEY`; or a folder that `fastmtl export` wrote.

    Raises:
        UserError: There is no model, or its weights were dropped.
    """
    folder, result = find(model)
    try:
        inner, task = (_load_exported if (folder / EXPORTED).is_file() else load_finetuned)(folder)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise UserError(f"{folder} cannot be read as a model ({reason}); train or export it again") from error
    return Model(folder, inner.eval(), task, result)


def find(model: str | Path | Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """Where the weights are, and the run's result, empty if it is not known; see `load`."""
    result, named = model, "this result"
    if not isinstance(result, Mapping):
        path, named = Path(result).expanduser(), str(result)
        if (path / EXPORTED).is_file() or "spec" in _json(path / "config.json"):
            return path, {}
        result = _json(path / "result.json" if path.is_dir() else path)
    stages = result.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        if stage.get("stage") == "finetune":
            folder = Path(stage["path"])
            if not folder.is_dir():
                raise UserError(f"{named}: its model, {folder}, is gone; repeat the run's command")
            return folder, result
    raise UserError(
        f"{named} is not a trained model; give the folder of a run, its result.json, outputs/artifacts/finetune/KEY or "
        "a folder that fastmtl export wrote"
    )


def _json(path: Path) -> dict[str, Any]:
    """A file's object; an empty one where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _load_exported(folder: Path) -> tuple[MultiTaskModel, TaskSpec]:
    given = json.loads((folder / EXPORTED).read_text(encoding="utf-8"))
    if not any(folder.glob("model*.safetensors")):
        raise UserError(f"{folder} has no model.safetensors; export it again")
    task = TaskSpec.from_dict(given["task"])
    model = MultiTaskModel(EncoderSpec(**{**given["encoder"], "name": str(folder.resolve())}), [task])
    missing, stray = model.load_state_dict(load_file(folder / HEADS), strict=False)
    assert not stray, f"{HEADS} has {stray[0]}"
    assert not [name for name in missing if not name.startswith("encoder.")], f"{HEADS} has no head of {task.name}"
    return model, task
