"""The relations pipeline: every task alone and in every pair, who gains by whom, and what predicts it.

A model is an artifact: the same command resumes, another task adds its own pairs alone, and processes with other seeds
may run beside each other (Bingel & Søgaard 2017, with seeds and affinities).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
from pandas import DataFrame

from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.pipelines.checks import check_measured
from fastmtl.pipelines.experiment import Experiment
from fastmtl.relations.gains import Relations
from fastmtl.seeds import generator
from fastmtl.stages.affinities import Affinities
from fastmtl.stages.features import Features
from fastmtl.stages.joint import JointTraining
from fastmtl.stages.proxy import Proxy
from fastmtl.store import Artifact

log = logging.getLogger(__name__)


@dataclass
class TaskRelations:
    """Models of tasks alone and in pairs, and the affinities of tasks, on the data and proxy of an experiment."""

    experiment: Experiment

    def joint_stage(self, *tasks: str) -> JointTraining:
        """The model of some tasks together, or of one alone, in whatever order they are named."""
        for task in self.experiment.tasks:
            if task.name in tasks:
                check_measured(task)
        return self.experiment.joint_stage(*tasks)

    def joint(self, *tasks: str) -> Artifact:
        """See `joint_stage`."""
        return self.experiment.context.get(self.joint_stage(*tasks))

    def features(self, task: str) -> Artifact:
        """What the task's data and its learning curve alone say."""
        return self.experiment.context.get(Features(self.joint_stage(task)))

    @cached_property
    def proxy(self) -> Proxy:
        """The last pass's first proxy, which must have a discriminator."""
        exp = self.experiment
        proxies = exp.proxy_stages[-1] if exp.proxy_stages else []
        if not proxies or proxies[0].discriminator is None:
            raise UserError(
                f"selection={exp.selection_plan.name} trains no task discriminator; use selection=feature_similarity"
            )
        return proxies[0]

    def affinities(self, rows_per_task: int = 128) -> Artifact:
        """How near all tasks are by the proxy and by their models alone."""
        exp, proxy = self.experiment, self.proxy
        if exp.proxy_plan.tasks is not None:
            raise UserError(
                f"proxy.tasks={list(exp.proxy_plan.tasks)}: affinities compare all tasks; use proxy.tasks=null"
            )
        rows = self.unused_rows(rows_per_task)
        singles = tuple(self.joint_stage(task.name) for task in exp.tasks)
        shards = tuple(exp.levels[0][-1])
        return exp.context.get(Affinities(exp.encoder, proxy, shards, singles, rows))

    def unused_rows(self, rows_per_task: int) -> RowSet:
        """At most so many rows of each task that the proxy was not trained on; the seed, no primary, draws them."""
        if isinstance(rows_per_task, bool) or not isinstance(rows_per_task, int) or rows_per_task < 10:
            raise UserError(f"rows_per_task={rows_per_task!r} is not a whole number of 10 or more; use 500, say")
        exp, drawn = self.experiment, {}
        for name in exp.pool.names:
            left = np.setdiff1d(exp.pool.rows_of(name), exp.samples[0], assume_unique=True)
            shuffled = generator("projection", name, exp.seed).permutation(left)
            drawn[name] = exp.pool.local(np.sort(shuffled[:rows_per_task]))
        return RowSet.of(exp.tasks, drawn)


@dataclass(frozen=True)
class GainMatrix:
    """All tasks alone and in pairs, over the experiments of some seeds; with `affinities` those too."""

    experiments: Mapping[int, Experiment]
    affinities: bool = True

    def run(self) -> Relations:
        """Train everything that is missing, then give all of it."""
        cells = {seed: TaskRelations(exp) for seed, exp in self.experiments.items()}
        tasks = next(iter(self.experiments.values())).tasks
        metrics = {task.name: task.metrics[0] for task in tasks}
        names = list(metrics)
        if len(names) < 2:
            raise UserError(f"data has one task, {names[0]!r}, and so no pairs; add tasks")
        for task in tasks:  # before the first model trains
            check_measured(task)
        groups = [(name,) for name in names] + list(combinations(names, 2))
        rows: list[dict[str, Any]] = []
        costs: list[dict[str, Any]] = []
        models: list[tuple[str, float, float]] = []
        for done, (group, seed) in enumerate(product(groups, cells), 1):
            stage, model, shown = cells[seed].joint_stage(*group), cells[seed].joint(*group), []
            measured = model.read("scores.json")
            for name in group:
                score = measured[name][metrics[name]]
                rows.append({
                    "task": name, "seed": seed, "metric": metrics[name], "score": score,
                    "rows": len(stage.measured[name]), "other": next((other for other in group if other != name), ""),
                })  # fmt: skip
                shown.append(f"{name} {100 * score:.1f}")
            state = "found" if model.hit else f"{model.records['wall_s']:.0f} s"
            log.info("[%d/%d] seed %d: %s (%s)", done, len(groups) * len(cells), seed, ", ".join(shown), state)
            costs.append({"work": "all pairs" if len(group) > 1 else "each task alone", **model.records})
            models.append((model.key, model.records["flops"], model.records["wall_s"]))
        tables = [_affinities(cell, costs) for cell in cells.values()] if self.affinities else []
        scores = DataFrame(rows)
        features = {
            name: DataFrame([cell.features(name).read("features.json") for cell in cells.values()]).mean().to_dict()
            for name in names
        }
        alone = scores["other"] == ""
        return Relations(
            scores[alone].drop(columns="other"), scores[~alone], features,
            {name: sum(each[name] for each in tables) / len(tables) for name in (tables[0] if tables else ())},
            _costs(costs), tuple(models),
        )  # fmt: skip


def _affinities(cell: TaskRelations, costs: list[dict[str, Any]]) -> dict[str, DataFrame]:
    made = cell.affinities()
    for before in (*cell.experiment.proxy(), *cell.experiment.scores()):
        costs.append({"work": "proxy and its scores", **before.records})
    costs += [{"work": f"affinity: {name}", "wall_s": s} for name, s in made.records["seconds"].items()]
    tables = {name: DataFrame(table).T for name, table in made.read("affinities.json").items()}
    return {name: table[list(table.index)] for name, table in tables.items()}


def _costs(costs: Sequence[Mapping[str, Any]]) -> DataFrame:
    """FLOPs and seconds of each kind of work; FLOPs that are not known of a part are not of the whole."""
    table = DataFrame(costs).reindex(columns=["work", "flops", "wall_s"]).rename(columns={"wall_s": "seconds"})
    return table.groupby("work", sort=False).agg(lambda column: column.sum(skipna=False)).astype(float)
