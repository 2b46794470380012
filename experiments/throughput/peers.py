"""The other sides of the benchmark: what one would write, or call, without fastmtl.

They get the same weights and the same rows, and their outputs are compared with ours. Each is given what its own
users have: fused optimizer, SDPA attention, inference mode, texts and padded rows already in memory.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ours import Text
from timing import NotMeasurable, Timed, timed
from torch import Tensor, nn
from torch.nn import functional

from fastmtl.data.pool import TaskPool, TokenRows
from fastmtl.models.multitask import MultiTaskModel, ProxyModel

PADDED_TO = 128
REFERENCE_BATCH = 128

Batch = dict[str, Any]


def _needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise NotMeasurable(f"package {package.replace('_', '-')} is not installed")


class Plain(nn.Module):
    """A Hugging Face encoder as it is, mean pooling, and the proxy's discriminator: the plain forward pass."""

    def __init__(self, model: ProxyModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model.encoder.inner).to(dtype)
        self.head = copy.deepcopy(model.discriminator)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        pooled = _mean(self.inner, input_ids, attention_mask, token_type_ids)
        return {"logits": self.head(pooled.float())}


class PlainMultiTask(nn.Module):
    """The same for training: one head a task; a batch is of one task."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.inner, self.heads = copy.deepcopy(model.encoder.inner), copy.deepcopy(model.heads)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor, task: str
    ) -> dict[str, Tensor]:
        pooled = _mean(self.inner, input_ids, attention_mask, token_type_ids)
        logits = self.heads[task](functional.dropout(pooled, 0.1, self.training))
        if logits.shape[1] == 1:
            return {"loss": functional.mse_loss(logits[:, 0], labels)}
        return {"loss": functional.cross_entropy(logits, labels.long())}


def _mean(inner: nn.Module, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
    out = inner(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
    mask = attention_mask.unsqueeze(-1).to(out.dtype)
    return (out * mask).sum(1) / mask.sum(1)


def padded(tokens: TokenRows, places: np.ndarray, width: int | None) -> Batch:
    """Tensors of some rows, padded to `width` tokens (None: to the longest of them)."""
    lengths = tokens.lengths[places]
    position = np.arange(width or int(lengths.max()))
    real = position < lengths[:, None]
    ids = tokens.ids[np.where(real, tokens.offsets[places][:, None] + position, 0)]
    second = (position >= tokens.second[places][:, None]) & real
    arrays = {
        "input_ids": np.where(real, ids, 0).astype(np.int64),
        "attention_mask": real.astype(np.int64),
        "token_type_ids": second.astype(np.int64),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# --- the reference path: every row padded to 128 tokens, in the Hugging Face Trainer ------------------------------


class Reference:
    """`Trainer.predict` in fp32 over rows that were padded before the clock starts."""

    def __init__(self, model: ProxyModel, tokens: TokenRows, folder: Path) -> None:
        _needs("accelerate")
        from transformers import Trainer

        together = padded(tokens, np.arange(len(tokens)), PADDED_TO)
        self.rows = [{name: tensor[i] for name, tensor in together.items()} for i in range(len(tokens))]
        self.trainer = Trainer(Plain(model), _arguments(folder, per_device_eval_batch_size=REFERENCE_BATCH))

    def run(self) -> np.ndarray:
        """(rows, tasks) logits."""
        return self.trainer.predict(self.rows).predictions  # type: ignore[arg-type]


def reference_training(
    pool: TaskPool, model: MultiTaskModel, places: Mapping[str, np.ndarray], batch_size: int, folder: Path
) -> Callable[[], Timed]:
    """`Trainer.train` in fp32, one epoch of shuffled one-task batches, padded before the clock starts."""
    _needs("accelerate")
    from transformers import PrinterCallback, Trainer

    rng = np.random.default_rng(0)
    batches: list[Batch] = []
    for name, rows in places.items():
        tokens, order = pool.split(name, "train"), rng.permutation(rows)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            labels = torch.from_numpy(tokens.labels[part].astype(np.float32))
            batches.append({**padded(tokens, part, PADDED_TO), "labels": labels, "task": name})

    def run() -> Timed:
        # An item is a whole batch: the Trainer shuffles batches, and each is of one task.
        arguments = _arguments(folder, per_device_train_batch_size=1, num_train_epochs=1, max_grad_norm=1.0)
        trainer = Trainer(PlainMultiTask(model), arguments, data_collator=_only, train_dataset=batches)  # type: ignore[arg-type]
        trainer.remove_callback(PrinterCallback)
        done = timed(trainer.train)
        return Timed(done.seconds, done.output.global_step)

    return run


def _only(items: list[Batch]) -> Batch:
    return items[0]


def _arguments(folder: Path, **more: Any) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        str(folder), report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(), **more,
    )  # fmt: skip


# --- plain dynamic padding ----------------------------------------------------------------------------------------


class DynamicPadding:
    """Rows sorted by length, batches of 128 padded to their longest, one plain forward pass each."""

    def __init__(self, model: ProxyModel, tokens: TokenRows, dtype: torch.dtype) -> None:
        self.tokens, self.model = tokens, Plain(model, dtype).eval()
        self.device = next(self.model.parameters()).device
        order = np.argsort(-tokens.lengths, kind="stable")  # the longest first: memory is asked for once
        self.parts = [order[start : start + 128] for start in range(0, len(order), 128)]

    @torch.inference_mode()
    def run(self) -> np.ndarray:
        """(rows, tasks) logits."""
        out = np.empty((len(self.tokens), self.model.head.out_features), np.float32)
        for part in self.parts:
            batch = {name: value.to(self.device) for name, value in padded(self.tokens, part, None).items()}
            out[part] = self.model(**batch)["logits"].cpu().numpy()
        return out

    def computed_per_token(self) -> float:
        """Tokens that pass through the encoder for each real one."""
        lengths = self.tokens.lengths
        return sum(len(part) * int(lengths[part].max()) for part in self.parts) / int(lengths.sum())


# --- sentence-transformers ----------------------------------------------------------------------------------------


class Encode:
    """`SentenceTransformer.encode` of the same weights with its defaults; texts of two columns are given as pairs.

    Its last module scales embeddings to length 1. It is taken out, which costs the peer nothing and lets the
    discriminator be put on top, so that outputs can be compared.
    """

    def __init__(self, model: ProxyModel, texts: list[Text], folder: str, dtype: torch.dtype = torch.float32) -> None:
        _needs("sentence_transformers")
        from sentence_transformers import SentenceTransformer

        self.texts, self.head = texts, model.discriminator
        self.device = next(self.head.parameters()).device
        more = {} if dtype == torch.float32 else {"dtype": dtype}
        self.model = SentenceTransformer(folder, device=str(self.device), model_kwargs=more)
        self.model.pop(len(self.model) - 1)
        self.model.max_seq_length = model.encoder.spec.max_length
        self.model.encode(texts[:32], show_progress_bar=False)  # its first call

    def run(self) -> np.ndarray:
        """(rows, hidden) embeddings; tokenization included, as a user calls it."""
        return self.model.encode(self.texts, show_progress_bar=False)

    @torch.inference_mode()
    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(rows, tasks) of what `run` returned."""
        return self.head(torch.from_numpy(embeddings).to(self.device).float()).cpu().numpy()


class EncodeForward(Encode):
    """Its forward passes alone, over its own batches of 32: sorted by characters, tokenized and padded before."""

    def __init__(self, model: ProxyModel, texts: list[Text], folder: str) -> None:
        super().__init__(model, texts, folder)
        order = np.argsort([-sum(map(len, [text] if isinstance(text, str) else text)) for text in texts])
        self.parts = [order[start : start + 32] for start in range(0, len(order), 32)]
        self.batches = [self.model.preprocess([texts[i] for i in part]) for part in self.parts]

    @torch.inference_mode()
    def run(self) -> np.ndarray:
        """(rows, hidden) embeddings."""
        out = np.empty((len(self.texts), self.head.in_features), np.float32)
        for part, batch in zip(self.parts, self.batches):
            on_device = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            out[part] = self.model(on_device)["sentence_embedding"].float().cpu().numpy()
        return out
