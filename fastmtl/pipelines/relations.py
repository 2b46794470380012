"""The relations pipeline: every task alone and in every pair, who gains by whom, and what predicts it.

A model is an artifact: the same command resumes, another task adds its own pairs alone, and processes with other seeds
may run beside each other (Bingel & Søgaard 2017, with seeds and affinities).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.pipelines.checks import check_measured
from fastmtl.pipelines.experiment import Experiment
from fastmtl.relations.gains import Relations
from fastmtl.seeds import generator
from fastmtl.stages.affinities import Affinities
from fastmtl.stages.features import Features
from fastmtl.stages.joint import JointTraining, joint_training
from fastmtl.stages.proxy import Proxy
from fastmtl.store import Artifact

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)


@dataclass
class TaskRelations:
    """Models of tasks alone and in pairs, and the affinities of tasks, on the data and proxy of an experiment."""

    experiment: Experiment

    def joint_stage(self, *tasks: str) -> JointTraining:
        """The model of some tasks together, or of one alone, in whatever order they are named."""
        exp, plan = self.experiment, self.experiment.relations_plan
        for task in exp.tasks:
            if task.name in tasks:
                check_measured(task)
        fit = replace(plan.fit.resolved(exp.hardware, exp.encoder), epochs=1)
        return joint_training(exp.tasks, exp.pool, tasks, plan, fit, exp.encoder, exp.seed)

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
        from pandas import DataFrame

        cells = {seed: TaskRelations(exp) for seed, exp in self.experiments.items()}
        tasks = next(iter(self.experiments.values())).tasks
        metrics = {task.name: task.metrics[0] for task in tasks}
        names = list(metrics)
        if len(names) < 2:
            raise UserError(f"data has one task, {names[0]!r}, and so no pairs; add tasks")
        for task in tasks:  # before the first model trains
            check_measured(task)
        groups = [(name,) for name in names] + list(combinations(names, 2))
        single: list[dict[str, Any]] = []
        pairs: list[dict[str, Any]] = []
        costs: dict[str, list[Any]] = {"each task alone": [], "all pairs": []}
        for done, (group, seed) in enumerate([(group, seed) for group in groups for seed in cells], 1):
            stage, model, shown = cells[seed].joint_stage(*group), cells[seed].joint(*group), []
            measured = model.read("scores.json")
            for name in group:
                metric = metrics[name]
                score, rows = measured[name][metric], len(stage.measured[name])
                row = {"task": name, "seed": seed, "metric": metric, "score": score, "rows": rows}
                other = [one for one in group if one != name]
                (pairs if other else single).append({**row, "other": other[0]} if other else row)
                shown.append(f"{name} {100 * score:.1f}")
            state = "found" if model.hit else f"{model.records['wall_s']:.0f} s"
            log.info("[%d/%d] seed %d: %s (%s)", done, len(groups) * len(cells), seed, ", ".join(shown), state)
            costs["all pairs" if len(group) > 1 else "each task alone"].append(model.records)
        found = [_affinities(cell, costs) for cell in cells.values()] if self.affinities else []
        return Relations(
            DataFrame(single), DataFrame(pairs), _mean_features(list(cells.values()), names), _mean_tables(found),
            _costs(costs),
        )  # fmt: skip


def _affinities(cell: TaskRelations, costs: dict[str, list[Any]]) -> dict[str, DataFrame]:
    from pandas import DataFrame

    made = cell.affinities()
    before = (*cell.experiment.proxy(), *cell.experiment.scores())
    costs.setdefault("proxy and its scores", []).extend(one.records for one in before)
    for name, seconds in made.records["seconds"].items():
        costs.setdefault(f"affinity: {name}", []).append({"wall_s": seconds})
    tables = {name: DataFrame(table).T for name, table in made.read("affinities.json").items()}
    return {name: table[list(table.index)] for name, table in tables.items()}


def _mean_features(cells: Sequence[TaskRelations], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each task's features, the mean over seeds: its data has no seed, its learning curve has."""
    from pandas import DataFrame

    return {
        name: DataFrame([cell.features(name).read("features.json") for cell in cells]).mean().to_dict()
        for name in names
    }


def _mean_tables(found: Sequence[Mapping[str, DataFrame]]) -> dict[str, DataFrame]:
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]} if found else {}


def _costs(costs: Mapping[str, Sequence[Mapping[str, float]]]) -> DataFrame:
    from pandas import DataFrame

    rows = {
        work: {
            "flops": sum(one.get("flops", float("nan")) for one in records),
            "seconds": sum(one["wall_s"] for one in records),
        }
        for work, records in costs.items()
    }
    return DataFrame(rows).T
