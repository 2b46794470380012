"""The stage `leakage`: auxiliary training rows that say what the primary's held-back rows say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fastmtl.data.duplicates import Texts, matches, read_texts
from fastmtl.models.encoder import TokenizerSpec
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.pool import tokens
from fastmtl.store import Artifact
from fastmtl.tasks import TaskSpec

TABLE = "matches.parquet"


@dataclass(frozen=True, eq=False)
class Leakage(Stage):
    """`matches.parquet` (split, reference, task, row, kind): matches between rows of the primary and training rows of
    the other tasks, exact, normalised or near (see `fastmtl.data.duplicates`).

    All splits of the primary are compared, so that one pass serves all held-out rows that seeds draw.
    """

    kind = "leakage"
    primary: TaskSpec
    others: tuple[TaskSpec, ...]
    tokenizer: TokenizerSpec

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        folders = [one.path for one in tokens(context, [self.primary, *self.others], self.tokenizer.encoder)]
        candidates = [(task.name, read_texts(folder, "train")) for task, folder in zip(self.others, folders[1:])]
        found = [_compared(read_texts(folders[0], split), split, candidates) for split in self.primary.splits]
        pd.concat(found).to_parquet(out / TABLE, index=False)
        return {"examples": sum(len(texts) for _, texts in candidates)}


def _compared(reference: Texts, split: str, candidates: Sequence[tuple[str, Texts]]) -> pd.DataFrame:
    """The matches of one split of the primary; texts and pairs of texts have nothing to compare."""
    columns = ["split", "reference", "task", "row", "kind"]
    parts = [
        matches(reference, texts).rename(columns={"candidate": "row"}).assign(split=split, task=name)[columns]
        for name, texts in candidates
        if (texts.second is None) == (reference.second is None)
    ]
    return pd.concat(parts) if parts else pd.DataFrame({column: [] for column in columns})


def leaks(leakage: Artifact, held_back: dict[str, np.ndarray]) -> pd.DataFrame:
    """The matches with rows that must stay unseen, as split -> (n,) positions."""
    table = pd.read_parquet(leakage.path / TABLE)
    kept = [
        table[(table["split"] == split) & table["reference"].isin(positions)] for split, positions in held_back.items()
    ]
    return pd.concat(kept).drop_duplicates() if kept else table[:0]
