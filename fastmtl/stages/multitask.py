"""The stage `multitask`: one model with a head a task, trained on the primary's rows and the selected ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.online import OnlineSampling, Thompson
from fastmtl.data.samplers import Ratio, Sampling
from fastmtl.stages.ground import Evaluated, Ground, Rows
from fastmtl.training.modules import FitConfig
from fastmtl.training.weighting import Weighting


@dataclass(frozen=True, eq=False)
class Multitask:
    """The MT-DNN on all primary rows, less the held-out ones, and the rows `selected` (ids)."""

    ground: Ground
    selected: np.ndarray
    order: Sampling | OnlineSampling
    fit: FitConfig
    weighting: Weighting
    name: ClassVar[str] = "multitask"

    @cached_property
    def rows(self) -> Rows:
        """The rows of each task, the primary's first."""
        return {self.ground.primary: self.ground.primary_rows[0], **self.ground.pool.by_task(np.sort(self.selected))}

    @cached_property
    def _mixed(self) -> tuple[Sampling | OnlineSampling, Rows]:
        """Order and rows; a task of ratio 0 is in neither, as if it had not been selected."""
        order, rows = self.order, self.rows
        if not isinstance(order, Ratio):
            return order, rows
        order.check(len(rows))
        kept = [(name, ratio) for name, ratio in zip(rows, order.ratios) if ratio]
        return replace(order, ratios=tuple(ratio for _, ratio in kept)), {name: rows[name] for name, _ in kept}

    @property
    def _rewarded(self) -> Evaluated | None:
        """The rows that reward the order, where it learns from them."""
        return self.ground.rewarded(self.order) if isinstance(self.order, Thompson) else None

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        order, rows = self._mixed
        rewarded = {"rewarded": self.ground.evaluated_identity(self._rewarded)} if self._rewarded else {}
        return {
            "version": 3 if isinstance(order, Thompson) else 2,
            "weighting": self.weighting,
            **self.ground.fit_identity(rows, self.fit, self.ground.encoder, order),
            **rewarded,
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        order, rows = self._mixed
        return self.ground.fit(
            "multitask", rows, self.fit, out, self.ground.encoder, sampling=order, weighting=self.weighting,
            evaluated=self._rewarded, keep_best=False,
        )  # fmt: skip
