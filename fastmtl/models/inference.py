"""One forward pass over many rows: sorted by length, batched by tokens, written back by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastmtl.data.collate import collate
from fastmtl.data.pool import TokenRows, chunks

BATCH_TOKENS = 4096
BATCH_ROWS = 256


@dataclass(frozen=True)
class Inference:
    """How forward passes run: padding id, device, and the dtype of autocast (float32: no autocast)."""

    pad_id: int
    device: torch.device
    dtype: torch.dtype


@torch.inference_mode()
def forward_rows(
    forward: Callable[[dict[str, Tensor]], Tensor], rows: TokenRows, places: np.ndarray, how: Inference, title: str
) -> np.ndarray:
    """`forward` of the given rows as float32 (n, C), in the order of `places`; n must not be 0.

    The model must be in eval mode and on `how.device`.
    """
    lengths = rows.lengths[places]
    order = np.argsort(lengths, kind="stable")
    out: np.ndarray | None = None
    with tqdm(total=len(places), desc=title, unit="row", delay=2, leave=False) as bar:
        for part in chunks(order, lengths, BATCH_TOKENS, BATCH_ROWS):
            batch = {name: value.to(how.device) for name, value in collate(rows, places[part], how.pad_id).items()}
            with torch.autocast(how.device.type, dtype=how.dtype, enabled=how.dtype != torch.float32):
                values = forward(batch).float().cpu().numpy()
            if out is None:
                out = np.empty((len(places), values.shape[1]), dtype=np.float32)
            out[part] = values
            bar.update(len(part))
    assert out is not None, "no rows"
    return out
