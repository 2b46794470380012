"""What an auxiliary task gains a main task: scores of single-task and pair models in, relative gains out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from pandas import DataFrame, MultiIndex, Series
from scipy.stats import sem, t

from fastmtl.errors import UserError

Unit = Literal["percent", "points"]
"""Of a gain: relative to the single-task score, or a difference of scores; both times 100."""


def gains(single: DataFrame, pairs: DataFrame, unit: Unit = "percent") -> DataFrame:
    """Relative gain in % for every ordered pair, 100 (pair / single - 1), paired by seed (Bingel & Søgaard, figure 1).

    In `points` it is 100 (pair - single): where a task alone is near chance or zero, a share of that says nothing.

    Args:
        single: Columns task, seed, score.
        pairs: Columns task, other, seed, score: how well `task` does in the model of task and other. A model is trained
            once for both directions and has a row for each.
        unit: Of the gains.

    Returns:
        By (main, aux) over all ordered pairs of the tasks of `single`, in its order: gain (mean over seeds), low and
        high (Student's 95 % interval; NaN for one seed or equal gains), seeds.

    Raises:
        UserError: A score or pair is missing or doubled, or, in percent, a single-task score is not positive.
    """
    alone = _scores(single, ["task", "seed"])
    together = _scores(pairs, ["task", "other", "seed"])
    if unit == "percent" and not (alone > 0).all():
        (task, seed), score = alone[alone <= 0].index[0], alone[alone <= 0].iloc[0]
        raise UserError(f"task {task!r} alone scores {score:g} with seed {seed}: no gain relative to that; use points")
    order, rows = list(permutations(single["task"].unique(), 2)), []
    for task, other in order:
        before = alone.xs(task)
        after = together.reindex([(task, other, seed) for seed in before.index])
        for _, _, seed in after.index[after.isna()]:
            raise UserError(f"there is no score of {task!r} trained with {other!r}, seed {seed}; run that pair")
        change = 100 * (after.to_numpy() - before.to_numpy()) / (before.to_numpy() if unit == "percent" else 1.0)
        low = high = math.nan
        if np.ptp(change) > 0:
            low, high = t.interval(0.95, len(change) - 1, change.mean(), sem(change))
        rows.append((change.mean(), low, high, len(change)))
    return DataFrame(rows, MultiIndex.from_tuples(order, names=["main", "aux"]), ["gain", "low", "high", "seeds"])


def _scores(frame: DataFrame, keys: list[str]) -> Series:
    """The scores by their keys, each there once and a number."""
    scores = frame.set_index(keys)["score"]
    for bad, problem in (
        (scores.isna(), "the score of {} is no number; run it again"),
        (scores.index.duplicated(), "there are two scores of {}; keep one"),
    ):
        if bad.any():
            which = zip(keys, scores.index[bad][0])
            raise UserError(problem.format(", ".join(f"{key} {value}" for key, value in which)))
    return scores


@dataclass(frozen=True)
class Relations:
    """What was measured. `single` and `pairs` as of `gains`, with the columns metric and rows beside; `features`
    and `affinities` are means over seeds, by task, and by name; `costs` has one row per kind of work: FLOPs, seconds;
    `models` the key of each model that was trained, and what it took."""

    single: DataFrame
    pairs: DataFrame
    features: Mapping[str, Mapping[str, float]]
    affinities: Mapping[str, DataFrame]
    costs: DataFrame
    models: tuple[tuple[str, float, float], ...] = ()

    def gains(self, unit: Unit) -> DataFrame:
        return gains(self.single, self.pairs, unit=unit)
