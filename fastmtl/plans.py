"""The choices of an experiment that are more than one value: how to select, the proxy, the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastmtl.errors import UserError
from fastmtl.scoring.scorer import Scorer
from fastmtl.selection import Selector
from fastmtl.training.modules import FitConfig


@dataclass(frozen=True)
class SelectionPlan:
    """How auxiliary rows are valued (`scorer`, or None) and chosen (`selector`). `name` is for tables."""

    name: str
    selector: Selector
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        if self.selector.needs_scores and self.scorer is None:
            raise UserError(f"selection={self.name}: its selector needs scores; set selection.scorer")


@dataclass(frozen=True)
class ProxyPlan:
    """The proxy's training sample and fit. With `cross_fit` a second proxy, trained on a disjoint sample, scores the
    first one's rows, so that every row is a candidate."""

    fit: FitConfig
    examples_per_task: int = 500
    cross_fit: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cross_fit, bool):
            raise UserError(f"proxy.cross_fit={self.cross_fit!r} is not a choice; use true or false")
        if isinstance(self.examples_per_task, bool) or not isinstance(self.examples_per_task, int):
            raise UserError(f"proxy.examples_per_task={self.examples_per_task!r} is not a whole number; use 1 or more")
        if self.examples_per_task < 1:
            raise UserError(f"proxy.examples_per_task={self.examples_per_task} is out of range; use 1 or more")


@dataclass(frozen=True)
class Protocol:
    """`strict`: the epoch is chosen on `holdout` of the primary's training rows, the validation split is only reported
    on. `paper`: chosen and reported on the validation split, as FastMTL did; its scores are optimistic."""

    name: Literal["strict", "paper"] = "strict"
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in ("strict", "paper"):
            raise UserError(f"protocol.name={self.name!r} is unknown; use strict or paper")
        if not isinstance(self.holdout, int | float) or not 0 < self.holdout < 1:
            raise UserError(f"protocol.holdout={self.holdout!r} is out of range; use a share in (0, 1)")
