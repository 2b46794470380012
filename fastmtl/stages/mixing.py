"""The stage `mixing`: trials of mixing ratios, each a multitask and a finetune of its own."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.mixing import MixingSearch, Mixture, best
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.multitask import Multitask
from fastmtl.stages.utilities import FEW_ROWS
from fastmtl.store import Artifact
from fastmtl.training.metrics import criterion

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Mixing(Stage):
    """`mixing.json`: every trial of the search for a ratio.

    A trial is `multitask` with that ratio and `finetune` from its weights; its value is the primary's on the rows that
    choose the epoch. The records count the cost of all trials but the best one, whose stages are the experiment's own.
    """

    kind = "mixing"
    version = 2
    search: MixingSearch
    multitask: Multitask
    finetune: Finetune
    seed: int

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        chooses, task = self.finetune.evaluated.count, self.finetune.evaluated.tasks[0]
        if chooses < FEW_ROWS:
            log.warning(
                "%d rows of %s choose the ratio, few for a reliable choice; raise protocol.holdout", chooses, task.name
            )
        stages: dict[Mixture, list[Artifact]] = {}
        names = list(self.multitask.rows)

        def evaluate(ratio: Mixture) -> float:
            shown = ":".join(map(str, ratio))
            log.info("trial %d of %d: %s (%s)", len(stages) + 1, self.search.trials, shown, ", ".join(names))
            stages[ratio] = self._trial(ratio, context)
            fit = stages[ratio][-1].read("fit.json")
            value = criterion(fit["epochs"][fit["best_epoch"]], task.metrics, self.finetune.choose_by)
            log.info("    %s %.1f on the rows that choose", self.finetune.choose_by, 100 * value)
            return value

        trials = self.search.run(len(names), evaluate, self.seed)
        winner = best(trials).ratio
        records = [
            {**vars(trial), "value": trial.value if np.isfinite(trial.value) else None,  # JSON has no NaN
             "stages": [[a.kind, a.key] for a in stages[trial.ratio]],
             **{name: _total(stages[trial.ratio], name) for name in ("wall_s", "flops")}}
            for trial in trials
        ]  # fmt: skip
        (out / "mixing.json").write_text(json.dumps({"tasks": names, "ratio": winner, "trials": records}, indent=1))
        others = [record for record in records if record["ratio"] != winner]
        ask_s, wall_s, flops = (sum(r[name] for r in of) for name, of in
                                (("ask_s", records), ("wall_s", others), ("flops", others)))  # fmt: skip
        return {"trials": len(trials), "ask_s": round(ask_s, 3), "flops": flops, "wall_s": round(wall_s + ask_s, 3)}

    def _trial(self, ratio: Mixture, context: Context) -> list[Artifact]:
        multitask = self.multitask.ordered(self.search.order(ratio))
        return [context.get(one) for one in (multitask, replace(self.finetune, multitask=multitask))]


def _total(artifacts: list[Artifact], record: str) -> float:
    return float(sum(artifact.records[record] for artifact in artifacts))
