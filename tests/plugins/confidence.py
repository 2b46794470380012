"""A scorer on a proxy with task heads alone."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fastmtl.models.inference import forward_rows
from fastmtl.models.multitask import MultiTaskModel, head_in_float32
from fastmtl.options import options
from fastmtl.scoring.base import Needs, ScoringInputs


@options
class Confidence:
    """How sure the primary's head is of its best class for a row, as a log-probability; 0 where it has no classes."""

    needs: ClassVar[Needs] = "heads"
    per_primary: ClassVar[bool] = False

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """(T, n): one pass through the encoder, and all heads over its features."""
        model = inputs.model
        assert isinstance(model, MultiTaskModel)
        rows = inputs.pool.split(task, "train")
        features = forward_rows(model.encoder, nn.Identity(), rows, positions, inputs.inference, f"read {task}")
        device = inputs.inference.device
        with torch.inference_mode():
            h_nH = torch.from_numpy(features).to(device)
            logits = [head_in_float32(model.heads[name], h_nH) for name in inputs.tasks]
            best = [torch.log_softmax(each, dim=1).max(dim=1).values for each in logits]
        return torch.stack(best).cpu().numpy()
