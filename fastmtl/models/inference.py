"""One forward pass over many rows: sorted by length, batched by tokens, written back by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastmtl.data.collate import collate
from fastmtl.data.pool import TokenRows, chunks

BATCH_TOKENS = 4096
BATCH_ROWS = 256


@torch.inference_mode()
def forward_rows(
    forward: Callable[[dict[str, Tensor]], Tensor], rows: TokenRows, places: np.ndarray, pad_id: int,
    device: torch.device, dtype: torch.dtype, describe: str,
) -> np.ndarray:  # fmt: skip
    """`forward` of the given rows as float32 (n, C), in the order of `places`; under autocast unless dtype is float32.

    The model must be in eval mode and on `device`.
    """
    order = np.argsort(rows.lengths[places], kind="stable")
    out: np.ndarray | None = None
    with tqdm(total=len(places), desc=describe, unit="row", delay=2, leave=False) as bar:
        for part in chunks(order, rows.lengths[places], BATCH_TOKENS, BATCH_ROWS):
            batch = {name: value.to(device) for name, value in collate(rows, places[part], pad_id).items()}
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                values = forward(batch).float().cpu().numpy()
            if out is None:
                out = np.empty((len(places), values.shape[1]), dtype=np.float32)
            out[part] = values
            bar.update(len(part))
    return np.empty((0, 0), dtype=np.float32) if out is None else out
