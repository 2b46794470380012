"""The stage `utilities`: each task's use to the primary, by AutoSeM's bandit or by a saved predictor of gains."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmtl.data.batching.online import ThompsonSampling
from fastmtl.data.rows import RowSet
from fastmtl.relations.predictor import GainPredictor
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.features import Features
from fastmtl.stages.fitting import FitStage
from fastmtl.store import WEIGHTS, Artifact

log = logging.getLogger(__name__)

FEW_ROWS = 50
"""A share of right answers over fewer rows than this has a standard error of seven points or more."""


@dataclass(frozen=True, eq=False)
class Bandit(FitStage):
    """`bandit.json`: each task's utility to the primary, and every round, valued on the `rewarded` rows."""

    kind = "utilities"
    policy: ThompsonSampling
    rewarded: RowSet

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        if self.rewarded.count < FEW_ROWS:
            name = self.rewarded.tasks[0].name
            log.warning("%d rows of %s reward the bandit, few for a reliable choice", self.rewarded.count, name)
        records = self.train("bandit", out, context, sampling=self.policy, evaluated=self.rewarded, keep_best=False)
        (out / WEIGHTS).unlink()  # its rounds are what it was for
        return records


@dataclass(frozen=True, eq=False)
class PredictedUtilities(Stage):
    """`utilities.json`: task -> probability of a gain, None for the primary; from the features of each task.

    The predictor counts by its coefficients, not by its file. Its cost is that of the models that it was fitted to.
    """

    kind = "utilities"
    primary: str
    predictor: GainPredictor
    features: tuple[Features, ...]

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        known: Mapping[str, Any] = {one.task.name: context.get(one).read("features.json") for one in self.features}
        started = time.perf_counter()
        utilities = {self.primary: None, **dict(self.predictor.rank(self.primary, known))}
        (out / "utilities.json").write_text(json.dumps(utilities, indent=1))
        own = {features.single.key for features in self.features}  # whose cost is their own
        models = [(flops, seconds) for key, flops, seconds in self.predictor.models if key not in own]
        flops, seconds = (sum(part) for part in zip((0.0, time.perf_counter() - started), *models))
        return {"flops": flops, "wall_s": round(seconds, 3)}


def read_predictor(path: str) -> GainPredictor:
    """A predictor that was saved; `UserError` if there is none."""
    return GainPredictor.load(Path(path).expanduser())


def read_utilities(utilities: Artifact) -> dict[str, float | None]:
    """Task -> utility to the primary, by a bandit or a predictor; None where it has none."""
    if (utilities.path / "bandit.json").exists():
        return utilities.read("bandit.json")["utilities"]
    return utilities.read("utilities.json")
