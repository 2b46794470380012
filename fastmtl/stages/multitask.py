"""The stage `multitask`: one model, trained on the primary's rows and the selected ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastmtl.data.batching.online import OnlineSampling
from fastmtl.data.batching.planned import Ratio, Sampling
from fastmtl.data.rows import RowSet
from fastmtl.identity import LATER
from fastmtl.stages.base import Context
from fastmtl.stages.fitting import FitStage
from fastmtl.training.weighting import Weighting


@dataclass(frozen=True, eq=False)
class Multitask(FitStage):
    """The MT-DNN on all primary rows, less the held-out ones, and the selected rows.

    `rewarded` are the rows on which an order that learns from the primary's value measures it; `heads` are pairs of a
    task and the task whose head it shares.
    """

    kind = "multitask"
    sampling: Sampling | OnlineSampling
    weighting: Weighting
    rewarded: RowSet | None
    heads: tuple[tuple[str, str], ...] = field(default=(), metadata=LATER)

    def ordered(self, sampling: Sampling | OnlineSampling) -> Multitask:
        """The same in another order; a task of ratio 0 is left out, as if none of its rows had been selected."""
        if not isinstance(sampling, Ratio):
            return replace(self, sampling=sampling)
        sampling.check(len(self.rows))
        kept = [name for name, ratio in zip(self.rows, sampling.ratios) if ratio]
        order = replace(sampling, ratios=tuple(ratio for ratio in sampling.ratios if ratio))
        return replace(self, sampling=order, rows=self.rows.only(kept))

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        return self.train(
            "multitask", out, context, sampling=self.sampling, weighting=self.weighting, evaluated=self.rewarded,
            keep_best=False, heads=dict(self.heads),
        )  # fmt: skip
