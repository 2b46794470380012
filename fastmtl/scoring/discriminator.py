"""Feature similarity: a row is valued by how much the task discriminator takes it for a row of the primary task."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch.nn import functional

from fastmtl.models.inference import forward_rows
from fastmtl.models.multitask import ProxyModel
from fastmtl.options import options
from fastmtl.scoring.base import ScoringInputs


@options
class Discriminator:
    """FastMTL (Kung et al., EMNLP 2021): DCE with `loss=ce`, DBCE with `loss=bce`.

    Scores are log-probabilities of the softmax for `ce` and raw logits for `bce`: both order rows as the probabilities
    do and neither saturates. (The paper's code took sigmoids of both, in half precision.)
    """

    loss: Literal["ce", "bce"] = "ce"

    needs: ClassVar[Literal["discriminator"]] = "discriminator"
    per_primary: ClassVar[bool] = False

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """See `Scorer`: (T, n)."""
        proxy = inputs.model
        assert isinstance(proxy, ProxyModel)
        rows = inputs.pool.split(task, "train")
        logits_nT = forward_rows(proxy.encoder, proxy.discriminator, rows, positions, inputs.inference, f"score {task}")
        if self.loss == "ce":
            logits_nT = functional.log_softmax(torch.from_numpy(logits_nT), dim=1).numpy()
        return np.ascontiguousarray(logits_nT.T)
