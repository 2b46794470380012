"""One forward pass over many rows: sorted by length, batched by tokens, written back by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastmtl.data.collate import collate, pack
from fastmtl.data.pool import TokenRows, chunks
from fastmtl.errors import UserError
from fastmtl.models.encoder import Encoder
from fastmtl.models.multitask import full_precision
from fastmtl.models.packed import PackedEncoder, can_pack

PACKED_TOKENS = {"cpu": 2048, "cuda": 65536}
"""Tokens a packed batch: enough to keep the device busy, few enough for a CPU's cache to hold its activations."""
BATCH_TOKENS = 4096
BATCH_ROWS = 256
"""Padded batches: tokens with padding, and rows, at most."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


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
    encoder: Encoder, head: nn.Module, rows: TokenRows, places: np.ndarray, how: Inference, title: str
) -> np.ndarray:
    """`head` of the pooled features of the given rows as float32 (n, C), in the order of `places`; n must not be 0.

    Encoder and head must be in eval mode and on `how.device`. Outputs stay on the device until the end, so that no
    batch waits for a copy.
    """
    order = np.argsort(rows.lengths[places], kind="stable")
    packs = how.pack and can_pack(encoder)
    if how.precision == "int8" and not (packs and how.device.type == "cpu"):
        raise UserError(f"scoring.precision=int8 is for BERT and RoBERTa on CPUs, not {encoder.spec.name!r}; use auto")
    features = _packed if packs else _padded
    values: list[Tensor] = []
    with tqdm(total=len(places), desc=title, unit="row", delay=2, leave=False) as bar:
        for h_BH in features(encoder, rows, places[order], how):
            values.append(full_precision(head, h_BH))
            bar.update(len(h_BH))
    out = np.empty((len(places), values[0].shape[1]), dtype=np.float32)
    out[order] = torch.cat(values).cpu().numpy()
    return out


def _packed(encoder: Encoder, rows: TokenRows, places: np.ndarray, how: Inference) -> Iterator[Tensor]:
    """Features (B, H), batch by batch, without padding; the rows are packed once and batches are views."""
    packed = PackedEncoder(encoder, DTYPES[how.precision], int8=how.precision == "int8")
    for batch in pack(rows, places).to(how.device).batches(PACKED_TOKENS[how.device.type]):
        yield packed(batch)


def _padded(encoder: Encoder, rows: TokenRows, places: np.ndarray, how: Inference) -> Iterator[Tensor]:
    """Features (B, H), batch by batch, of any encoder."""
    dtype = DTYPES[how.precision]
    for part in chunks(np.arange(len(places)), rows.lengths[places], BATCH_TOKENS, BATCH_ROWS):
        batch = {name: value.to(how.device) for name, value in collate(rows, places[part], how.pad_id).items()}
        with torch.autocast(how.device.type, dtype=dtype, enabled=dtype != torch.float32):
            yield encoder(batch)
