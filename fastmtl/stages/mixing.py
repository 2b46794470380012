"""The stage `mixing`: trials of mixing ratios, each a multitask and a finetune of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.samplers import Ratio
from fastmtl.mixing import MixingSearch, Mixture, best
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.ground import FEW_ROWS, Ground
from fastmtl.stages.multitask import Multitask
from fastmtl.store import Artifact


@dataclass(frozen=True, eq=False)
class Mixing:
    """`mixing.json`: every trial of the search for a ratio.

    A trial is `multitask` with that ratio and `finetune` from its weights; its value is the primary's on the rows that
    choose the epoch. The records count the cost of all trials but the best one, whose stages are the experiment's own.
    """

    ground: Ground
    search: MixingSearch
    multitask: Multitask
    finetune: Finetune
    name: ClassVar[str] = "mixing"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 2,
            "search": self.search,
            "trial": [self.multitask.identity, self.finetune.identity],
            "held_out": self.ground.evaluated_identity(self.ground.evaluated),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        if (n := len(self.ground.evaluated[2])) < FEW_ROWS:
            print(
                f"fastmtl: {n} rows of {self.ground.primary} choose the ratio, few for a reliable choice; raise "
                "protocol.holdout",
                flush=True,
            )
        stages: dict[Mixture, list[Artifact]] = {}
        tasks = list(self.multitask.rows)

        def evaluate(ratio: Mixture) -> float:
            tried = ":".join(map(str, ratio))
            print(f"trial {len(stages) + 1} of {self.search.trials}: {tried} ({', '.join(tasks)})", flush=True)
            stages[ratio] = self._trial(ratio)
            fit, metric = stages[ratio][-1].read("fit.json"), self.ground.pool.task(self.ground.primary).metrics[0]
            value = fit["epochs"][fit["best_epoch"]][metric]
            print(f"    {metric} {100 * value:.1f} on the rows that choose", flush=True)
            return value

        trials = self.search.run(len(tasks), evaluate, self.ground.seed)
        winner = best(trials).ratio
        told = [
            {**vars(trial), "value": trial.value if np.isfinite(trial.value) else None,  # JSON has no NaN
             "stages": [[a.stage, a.key] for a in stages[trial.ratio]],
             **{name: _total(stages[trial.ratio], name) for name in ("wall_s", "flops")}}
            for trial in trials
        ]  # fmt: skip
        (out / "mixing.json").write_text(json.dumps({"tasks": tasks, "ratio": winner, "trials": told}, indent=1))
        others = [one for one in told if one["ratio"] != winner]
        ask_s = sum(trial.ask_s for trial in trials)
        return {
            "trials": len(trials),
            "ask_s": round(ask_s, 3),
            "flops": sum(one["flops"] for one in others),
            "wall_s": round(sum(one["wall_s"] for one in others) + ask_s, 3),
        }

    def _trial(self, ratio: Mixture) -> list[Artifact]:
        multitask = replace(self.multitask, order=Ratio(ratio))
        return [self.ground.artifact(one) for one in (multitask, replace(self.finetune, multitask=multitask))]


def _total(artifacts: list[Artifact], record: str) -> float:
    return float(sum(artifact.records[record] for artifact in artifacts))
