"""The stage `utilities`: AutoSeM's bandit values every task by its use to the primary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.online import Thompson
from fastmtl.plans import BanditPlan
from fastmtl.stages.ground import FEW_ROWS, Evaluated, Ground, Rows
from fastmtl.store import WEIGHTS, Artifact


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

    @cached_property
    def split(self) -> tuple[np.ndarray, Evaluated]:
        """The primary's rows to train on, and those whose value rewards a round: the protocol's held-out ones first."""
        trained, held = self.ground.primary_rows
        if not len(held):  # under `paper` there is the validation split
            return trained, self.ground.rewarded(self.policy)
        most = max(1, int(self.plan.holdout * (len(trained) + len(held))))
        in_turn = np.concatenate([self.ground.shuffled(held), self.ground.shuffled(trained)])
        rewarded = in_turn[: min(self.policy.validation_rows, most)]
        return np.setdiff1d(trained, rewarded), (self.ground.primary, "train", np.sort(rewarded))

    @property
    def rows(self) -> Rows:
        """The primary's rows to train on, and all rows of all other tasks."""
        pool, primary = self.ground.pool, self.ground.primary
        auxiliary = {name: pool.local(pool.rows_of(name)) for name in pool.names if name != primary}
        return {primary: self.split[0], **auxiliary}

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 2,
            "rewarded": self.ground.evaluated_identity(self.split[1]),
            **self.ground.fit_identity(self.rows, self.plan.fit, self.ground.encoder, self.policy),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        if (n := len(self.split[1][2])) < FEW_ROWS:
            print(
                f"fastmtl: {n} rows of {self.ground.primary} reward the bandit, few for a reliable choice", flush=True
            )
        records = self.ground.fit(
            "bandit", self.rows, self.plan.fit, out, self.ground.encoder, sampling=self.policy, evaluated=self.split[1],
            keep_best=False,
        )  # fmt: skip
        (out / WEIGHTS).unlink()  # its rounds are what it was for
        return records


def read_utilities(utilities: Artifact) -> dict[str, float | None]:
    """Task -> utility to the primary, by a bandit or a predictor; None where it has none."""
    if (utilities.path / "bandit.json").exists():
        return utilities.read("bandit.json")["utilities"]
    return utilities.read("utilities.json")
