"""Feature similarity: a row is valued by how much the task discriminator takes it for a row of the primary task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from fastmtl.data.pool import TaskPool
from fastmtl.errors import UserError
from fastmtl.models.inference import Inference, forward_rows
from fastmtl.scoring.scorer import Proxy


@dataclass(frozen=True)
class Discriminator:
    """FastMTL (Kung et al., EMNLP 2021): DCE with `loss=ce`, DBCE with `loss=bce`.

    Scores are log-probabilities of the softmax for `ce` and raw logits for `bce`: both order rows as the probabilities
    do and neither saturates. (The paper's code took sigmoids of both, in half precision.) A row is scored by the first
    proxy that was not trained on it, so with one proxy its own training rows stay NaN.
    """

    loss: Literal["ce", "bce"] = "ce"

    def __post_init__(self) -> None:
        if self.loss not in ("ce", "bce"):
            raise UserError(f"selection.scorer.loss={self.loss!r} is unknown; use ce or bce")

    @property
    def discriminator(self) -> Literal["ce", "bce"]:
        """See `Scorer`."""
        return self.loss

    def score(self, pool: TaskPool, proxies: list[Proxy], how: Inference) -> np.ndarray:
        """See `Scorer`."""
        scores_TN = np.full((len(pool.tasks), len(pool)), np.nan, dtype=np.float32)
        for name in pool.names:
            todo = pool.rows_of(name)
            for proxy in proxies:
                seen = np.isin(todo, proxy.trained_on, assume_unique=True)
                rows, todo = todo[~seen], todo[seen]
                if not len(rows):
                    continue
                places = pool.local(rows)
                logits_nT = forward_rows(
                    proxy.model.task_logits, pool.split(name, "train"), places, how, f"score {name}"
                )
                if self.loss == "ce":
                    logits_nT = functional.log_softmax(torch.from_numpy(logits_nT), dim=1).numpy()
                scores_TN[:, rows] = logits_nT.T
        return scores_TN
