"""What an auxiliary task gains a main task: scores of single-task and pair models in, relative gains out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from fastmtl.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame, Series


Unit = Literal["percent", "points"]
"""Of a gain: relative to the single-task score, or a difference of scores; both times 100."""


def gains(single: DataFrame, pairs: DataFrame, confidence: float = 0.95, unit: Unit = "percent") -> DataFrame:
    """Relative gain in % for every ordered pair, 100 (pair / single - 1), paired by seed (Bingel & Søgaard, figure 1).

    In `points` it is 100 (pair - single): where a task alone is near chance or zero, a share of that says nothing.

    `single` has the columns task, seed, score; `pairs` task, other, seed, score: how well `task` does in the model of
    task and other. A model is trained once for both directions and has a row for each. The index is (main, aux) over
    all ordered pairs of the tasks of `single`, in its order; columns gain (mean over seeds), low, high (Student's
    interval; NaN for one seed or equal gains), seeds. `UserError` for a missing or doubled score or pair, and for
    single-task scores that are not positive, in percent.
    """
    from pandas import DataFrame, MultiIndex

    alone = _scores(single, ["task", "seed"])
    together = _scores(pairs, ["task", "other", "seed"])
    if unit == "percent" and not (alone > 0).all():
        (task, seed), score = alone[alone <= 0].index[0], alone[alone <= 0].iloc[0]
        raise UserError(f"task {task!r} alone scores {score:g} with seed {seed}: no gain relative to that; use points")
    seeds = alone.groupby("task", sort=False).groups
    known = set(together.index)
    order = list(permutations(seeds, 2))
    rows = []
    for task, other in order:
        for _, seed in seeds[task]:
            if (task, other, seed) not in known:
                raise UserError(f"there is no score of {task!r} trained with {other!r}, seed {seed}; run that pair")
        over = {seed: alone[task, seed] if unit == "percent" else 1.0 for _, seed in seeds[task]}
        change = [100 * (together[task, other, s] - alone[task, s]) / over[s] for s in over]
        rows.append((*_summary(change, confidence), len(change)))
    return DataFrame(rows, MultiIndex.from_tuples(order, names=["main", "aux"]), ["gain", "low", "high", "seeds"])


def _scores(frame: DataFrame, keys: list[str]) -> Series:
    """The scores by their keys, each there once and a number."""
    scores = frame.set_index(keys)["score"]
    if scores.isna().any():
        raise UserError(f"the score of {_named(keys, scores.index[scores.isna()][0])} is no number; run it again")
    if scores.index.has_duplicates:
        raise UserError(f"there are two scores of {_named(keys, scores.index[scores.index.duplicated()][0])}; keep one")
    return scores


def _named(keys: list[str], values: tuple) -> str:
    return ", ".join(f"{key} {value}" for key, value in zip(keys, values))


def _summary(change: list[float], confidence: float) -> tuple[float, float, float]:
    """Mean and its interval, which few equal values do not have."""
    import numpy as np
    from scipy.stats import sem, t

    mean = float(np.mean(change))
    if np.ptp(change) == 0:
        return mean, np.nan, np.nan
    low, high = t.interval(confidence, len(change) - 1, mean, sem(change))
    return mean, float(low), float(high)


@dataclass(frozen=True)
class Relations:
    """What was measured. `single` and `pairs` as of `gains`, with the columns metric and rows beside; `features`
    and `affinities` are means over seeds, by task, and by name; `costs` has a row a kind of work: FLOPs, seconds."""

    single: DataFrame
    pairs: DataFrame
    features: Mapping[str, Mapping[str, float]]
    affinities: Mapping[str, DataFrame]
    costs: DataFrame

    def gains(self, unit: Unit) -> DataFrame:
        return gains(self.single, self.pairs, unit=unit)
