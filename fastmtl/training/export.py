"""A trained model as a folder of Transformers: weights, tokenizer, and what reads it here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.models.encoder import quiet, tokenizer_of
from fastmtl.models.stock import stock_model
from fastmtl.training.trained import EXPORTED, HEADS, Model, load, token_rows

CHECKED_ROWS = 16
TOLERANCE = 1e-5
"""Of the logits of the checked rows, as a share of the largest."""


def export(model: Model, folder: Path, card: Callable[[Path, float], str] | None = None) -> float:
    """Write a folder that `from_pretrained` of Transformers and `fastmtl.load` read, and compare the three.

    Args:
        model: The model.
        folder: A new or empty folder; it appears when all of it has been written and checked.
        card: Gives README.md from the written files and what is returned.

    Returns:
        The largest difference of logits between the model and the folder read again, on rows of random tokens.

    Raises:
        UserError: There is no class of Transformers for the model, or the folder has other files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} is there already; name a new folder")
    inner, task, spec = model.inner.cpu(), model.task, model.inner.encoder.spec
    stock = stock_model(inner, task)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        draft.mkdir(parents=True)
        with quiet():
            stock.save_pretrained(draft)
        tokenizer = spec.make_tokenizer().inner
        tokenizer.model_max_length = spec.max_length
        tokenizer.save_pretrained(draft)
        made = ("heads.", "encoder.inner.pooler.")
        save_file({n: t.contiguous() for n, t in inner.state_dict().items() if n.startswith(made)}, draft / HEADS)
        own = inner.encoder.num_layers  # without the one that averages
        layers = own if stock.config.num_hidden_layers > own else None
        plain = replace(spec, name=".", revision=None, layers=layers)
        described = {"encoder": asdict(plain), "task": task.to_dict()}
        (draft / EXPORTED).write_text(json.dumps(described, indent=1), encoding="utf-8")
        difference = _check(model, draft)
        if card is not None:
            (draft / "README.md").write_text(card(draft, difference), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(draft, folder)
    except OSError as error:
        raise UserError(f"{str(folder)!r} cannot be written ({error.strerror}); name a folder of yours") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return difference


@torch.inference_mode()
def _check(model: Model, folder: Path) -> float:
    """Largest difference of logits; a `UserError` where the folder's tokens or logits are not the model's."""
    task, spec = model.task, model.inner.encoder.spec
    tokenizer, words, rng = tokenizer_of(spec).inner, task.of_kind.reads == "words", np.random.default_rng(0)
    vocabulary = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha()) or ["a"]
    drawn = [[rng.choice(vocabulary, rng.integers(1, 40)).tolist() for _ in range(CHECKED_ROWS)] for _ in task.text]
    columns = drawn if words else [[" ".join(row) for row in column] for column in drawn]
    rows = token_rows(list(zip(*columns)) if len(columns) == 2 else columns[0], task, spec)
    batch = collate(rows, np.arange(len(rows)), tokenizer.pad_token_id)
    refused = f"encoder {spec.name!r} cannot be exported"
    try:
        with quiet():
            again = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            read = again(*columns, padding=True, truncation=True, is_split_into_words=words, return_tensors="pt")
            kind = AutoModelForTokenClassification if words else AutoModelForSequenceClassification
            stock = kind.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, AssertionError) as error:
        raise UserError(f"{refused}: {str(error).splitlines()[0]:.160}; use fastmtl predict") from error
    if not torch.equal(read["input_ids"], batch["input_ids"]):
        raise UserError(f"{refused}: AutoTokenizer gives other tokens; use fastmtl predict")
    real = batch["attention_mask"].bool() if words else slice(None)
    ours, theirs = model.inner(batch, task.name)[real], stock(**read).logits[real]
    difference = max(float((ours - one).abs().max()) for one in (theirs, load(folder).inner(batch, task.name)[real]))
    if not difference <= TOLERANCE * float(ours.abs().max()):
        raise UserError(f"{refused}: its logits differ by {difference:.1g}; use fastmtl predict")
    return difference
