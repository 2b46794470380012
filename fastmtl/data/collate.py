"""Rows of the token pool as tensors: padded to the longest, or packed one after another. B rows, L tokens, N in all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmtl.data.pool import TokenRows
from fastmtl.tasks.kinds import HIDDEN_LABEL


def collate(rows: TokenRows, places: np.ndarray, pad_id: int) -> dict[str, Any]:
    """`input_ids`, `attention_mask`, `token_type_ids` (B, L) int64 and `labels` (B,) float32 of some rows.

    Of a tagging task `labels` are (B, L) int64: a tag's code at the first token of a word, elsewhere -100.
    One gather over the memory-mapped ids, no Python per row; padding goes to the longest row of this batch only.
    """
    lengths_B = rows.lengths[places]
    position_L = np.arange(int(lengths_B.max()))
    real_BL = position_L < lengths_B[:, None]
    where_BL = np.where(real_BL, rows.offsets[places][:, None] + position_L, 0)
    ids_BL = np.where(real_BL, rows.ids[where_BL], pad_id).astype(np.int64)
    types_BL = (position_L >= rows.second[places][:, None]) & real_BL
    labels = rows.labels[places].astype(np.float32)
    if rows.tags is not None:
        labels = np.where(real_BL, rows.tags[where_BL], HIDDEN_LABEL).astype(np.int64)
    return {
        "input_ids": torch.from_numpy(ids_BL),
        "attention_mask": torch.from_numpy(real_BL.astype(np.int64)),
        "token_type_ids": torch.from_numpy(types_BL.astype(np.int64)),
        "labels": torch.from_numpy(labels),
    }


@dataclass(frozen=True)
class PackedRows:
    """Rows one after another without padding, ascending in length.

    `ids`, `types`, `positions` (N,) int32; `lengths` (B,) int64, on the host.
    """

    ids: Tensor
    types: Tensor
    positions: Tensor
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def groups(self) -> list[tuple[int, int]]:
        """(rows, tokens a row) for each length that occurs, in order."""
        lengths, counts = np.unique(self.lengths, return_counts=True)
        return list(zip(counts.tolist(), lengths.tolist()))

    def to(self, device: torch.device) -> PackedRows:
        return PackedRows(self.ids.to(device), self.types.to(device), self.positions.to(device), self.lengths)

    def batches(self, max_tokens: int) -> Iterator[PackedRows]:
        """Views of about `max_tokens` tokens each, in order; a row is never cut."""
        ends = np.cumsum(self.lengths)
        cuts = np.flatnonzero(np.diff((ends - 1) // max_tokens)) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(self)]):
            tokens = slice(int(ends[start - 1]) if start else 0, int(ends[stop - 1]))
            yield PackedRows(self.ids[tokens], self.types[tokens], self.positions[tokens], self.lengths[start:stop])


def pack(rows: TokenRows, places: np.ndarray) -> PackedRows:
    """Some rows, given in ascending length; one gather over the memory-mapped ids, no Python per row."""
    lengths_B = rows.lengths[places]
    assert (np.diff(lengths_B) >= 0).all(), "rows are packed in ascending length"
    starts_B = (np.cumsum(lengths_B) - lengths_B).astype(np.int32)
    position_N = np.arange(lengths_B.sum(), dtype=np.int32) - np.repeat(starts_B, lengths_B)
    ids_N = rows.ids[np.repeat(rows.offsets[places], lengths_B) + position_N]
    types_N = position_N >= np.repeat(rows.second[places], lengths_B)
    ids, types, positions = (
        torch.from_numpy(array.astype(np.int32, copy=False)) for array in (ids_N, types_N, position_N)
    )
    return PackedRows(ids, types, positions, lengths_B)
