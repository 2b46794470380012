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
from fastmtl.models.multitask import ProxyModel


@dataclass(frozen=True)
class Discriminator:
    """FastMTL (Kung et al., EMNLP 2021): DCE with `loss=ce`, DBCE with `loss=bce`.

    Scores are log-probabilities of the softmax for `ce` and raw logits for `bce`: both order rows as the probabilities
    do and neither saturates. (The paper's code took sigmoids of both, in half precision.)
    """

    loss: Literal["ce", "bce"] = "ce"

    def __post_init__(self) -> None:
        if self.loss not in ("ce", "bce"):
            raise UserError(f"selection.scorer.loss={self.loss!r} is unknown; use ce or bce")

    @property
    def discriminator(self) -> Literal["ce", "bce"]:
        """See `Scorer`."""
        return self.loss

    def score(
        self, pool: TaskPool, task: str, places: np.ndarray, proxy: ProxyModel | None, how: Inference
    ) -> np.ndarray:
        """See `Scorer`."""
        assert proxy is not None
        rows = pool.split(task, "train")
        logits_nT = forward_rows(proxy.encoder, proxy.discriminator, rows, places, how, f"score {task}")
        if self.loss == "ce":
            logits_nT = functional.log_softmax(torch.from_numpy(logits_nT), dim=1).numpy()
        return np.ascontiguousarray(logits_nT.T)
