"""One forward pass over many rows: sorted by length, batched by tokens, written back by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.data.collate import collate, pack
from fastmtl.data.pool import TokenRows, chunks
from fastmtl.errors import UserError
from fastmtl.models.encoder import Encoder
from fastmtl.models.multitask import head_in_float32
from fastmtl.models.packed import PackedEncoder, can_pack
from fastmtl.progress import progress
from fastmtl.tasks.kinds import HIDDEN_LABEL

PACKED_TOKENS = {"cpu": 1024, "cuda": 65536}
"""Tokens a packed batch: enough to keep a GPU, or one core, busy; few enough for a core to keep them near."""
BATCH_TOKENS = 4096
BATCH_ROWS = 256
"""Padded batches: tokens with padding, and rows, at most."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


Features = Callable[[Any], Tensor]
"""From a batch to pooled features (B, H), or to the states of its words."""


@dataclass(frozen=True)
class Inference:
    """How forward passes run. `precision` is of weights and activations; int8 is for weights on CPUs.

    `pack=False` pads and masks: what encoders without a packed path do anyway, and what tests compare with.
    """

    pad_id: int
    device: torch.device
    precision: Precision = "fp32"
    pack: bool = True


@torch.inference_mode()
def forward_rows(
    encoder: Encoder, head: nn.Module, rows: TokenRows, positions: np.ndarray, how: Inference, title: str
) -> np.ndarray:
    """`head` of the pooled features of the given rows as float32 (n, C), in the order of `positions`; n must not be 0.

    Encoder and head must be in eval mode and on `how.device`. Outputs stay on the device until the end, so that no
    batch waits for a copy.
    """
    order = np.argsort(rows.lengths[positions], kind="stable")
    packs = how.pack and can_pack(encoder)
    if how.precision == "int8" and not (packs and how.device.type == "cpu"):
        raise UserError(f"scoring.precision=int8 is for BERT and RoBERTa on CPUs, not {encoder.spec.name!r}; use auto")
    values = _headed(head, *(_packed if packs else _padded)(encoder, rows, positions[order], how), how, title)
    out = np.empty_like(values)
    out[order] = values
    return out


@torch.inference_mode()
def forward_tokens(
    encoder: Encoder, head: nn.Module, rows: TokenRows, positions: np.ndarray, how: Inference, title: str
) -> list[np.ndarray]:
    """`head` of the state in which each word begins: for every row of a tagging task float32 (words, C).

    Rows in the order of `positions`, words in theirs; n must not be 0. As for `forward_rows`, but always padded.
    """
    order = np.argsort(rows.lengths[positions], kind="stable")
    values = _headed(head, *_padded(encoder, rows, positions[order], how, words=True), how, title)
    by_length = np.split(values, np.cumsum(rows.words[positions[order]])[:-1])
    return [by_length[i] for i in np.argsort(order)]


def _headed(head: nn.Module, batches: list[Any], features: Features, how: Inference, title: str) -> np.ndarray:
    """`head` of the features of all batches as float32 (n, C)."""
    values: list[Tensor] = []
    with progress(title, "row", sum(map(len, batches))) as bar:
        for h_MH, batch in zip(_in_order(features, batches, how.device), batches):
            values.append(head_in_float32(head, h_MH))
            bar.update(len(batch))
    return torch.cat(values).cpu().numpy()


def inference_flops(encoder: Encoder, lengths: np.ndarray, how: Inference, words: bool = False) -> float:
    """Model FLOPs of `forward_rows`, or with `words` of `forward_tokens`, over rows of `lengths` tokens."""
    if how.pack and not words and can_pack(encoder):
        return encoder.forward_flops(lengths, packed=True)
    return encoder.forward_flops(lengths)


def _packed(encoder: Encoder, rows: TokenRows, positions: np.ndarray, how: Inference) -> tuple[list[Any], Features]:
    """Batches without padding; the rows are packed once and batches are views."""
    batches = pack(rows, positions).to(how.device).batches(PACKED_TOKENS[how.device.type])
    return list(batches), PackedEncoder(encoder, DTYPES[how.precision], int8=how.precision == "int8")


def _padded(
    encoder: Encoder, rows: TokenRows, positions: np.ndarray, how: Inference, words: bool = False
) -> tuple[list[Any], Features]:
    """Batches of any encoder; with `words` their features are the states (M, H) in which words begin, row by row."""
    dtype = DTYPES[how.precision]

    def features(part: np.ndarray) -> Tensor:
        batch = {name: value.to(how.device) for name, value in collate(rows, positions[part], how.pad_id).items()}
        with torch.autocast(how.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return encoder.read(batch)[1][batch["labels"] != HIDDEN_LABEL] if words else encoder(batch)

    return list(chunks(np.arange(len(positions)), rows.lengths[positions], BATCH_TOKENS, BATCH_ROWS)), features


def _in_order(features: Features, batches: list[Any], device: torch.device) -> Iterator[Tensor]:
    """Features of each batch; on a CPU every core has a batch of its own.

    Cores that share a product wait for each other dozens of times a batch, for the slowest: alone, each runs at the
    rate of its products, also beside other load.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1 or len(batches) < cores:
        yield from map(features, batches)
        return

    def alone(batch: Any) -> Tensor:
        with torch.inference_mode():  # of this thread
            return features(batch)

    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(alone, batches)
    finally:
        torch.set_num_threads(cores)  # what threads started later take
