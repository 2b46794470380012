"""The stage `utilities`: AutoSeM's bandit values every task by its use to the primary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from fastmtl.data.online import Thompson
from fastmtl.plans import BanditPlan
from fastmtl.stages.ground import Ground, Rows
from fastmtl.store import Artifact

FEW_REWARDED = 50
"""A share of right answers over fewer rows than this has a standard error of seven points or more."""


@dataclass(frozen=True, eq=False)
class Utilities:
    """`bandit.json`: each task's utility to the primary and how it came about."""

    ground: Ground
    plan: BanditPlan
    name: ClassVar[str] = "utilities"

    @property
    def policy(self) -> Thompson:
        """The bandit, with the rounds that it plays."""
        return replace(self.plan.policy, rounds=self.plan.rounds)

    @property
    def rows(self) -> Rows:
        """The primary's rows less the held-out ones, and all rows of all other tasks."""
        pool, primary = self.ground.pool, self.ground.primary
        auxiliary = {name: pool.local(pool.rows_of(name)) for name in pool.names if name != primary}
        return {primary: self.ground.primary_rows[0], **auxiliary}

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "rewarded": self.ground.evaluated_identity(self.ground.rewarded(self.policy)),
            **self.ground.fit_identity(self.rows, self.plan.fit, self.ground.encoder, self.policy),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        rewarded = self.ground.rewarded(self.policy)
        if (n := len(rewarded[2])) < FEW_REWARDED:
            print(f"fastmtl: {n} rows reward the bandit, few for a reliable choice; raise protocol.holdout", flush=True)
        return self.ground.fit(
            "bandit", self.rows, self.plan.fit, out, self.ground.encoder, sampling=self.policy, evaluated=rewarded,
            keep_best=False,
        )  # fmt: skip


def read_utilities(utilities: Artifact) -> dict[str, float | None]:
    """Task -> utility to the primary, by a bandit or a predictor; None where it has none."""
    if (utilities.path / "bandit.json").exists():
        return utilities.read("bandit.json")["utilities"]
    return utilities.read("utilities.json")
