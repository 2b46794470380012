"""Rows of the token pool as padded tensors. B rows, L tokens of the longest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastmtl.data.pool import TokenRows


def collate(rows: TokenRows, places: np.ndarray, pad_id: int) -> dict[str, Any]:
    """`input_ids`, `attention_mask`, `token_type_ids` (B, L) int64 and `labels` (B,) float32 of some rows.

    One gather over the memory-mapped ids, no Python per row; padding goes to the longest row of this batch only.
    """
    lengths_B = rows.lengths[places]
    position_L = np.arange(int(lengths_B.max()))
    real_BL = position_L < lengths_B[:, None]
    where_BL = np.where(real_BL, rows.offsets[places][:, None] + position_L, 0)
    ids_BL = np.where(real_BL, rows.ids[where_BL], pad_id).astype(np.int64)
    types_BL = (position_L >= rows.second[places][:, None]) & real_BL
    return {
        "input_ids": torch.from_numpy(ids_BL),
        "attention_mask": torch.from_numpy(real_BL.astype(np.int64)),
        "token_type_ids": torch.from_numpy(types_BL.astype(np.int64)),
        "labels": torch.from_numpy(rows.labels[places].astype(np.float32)),
    }
