"""How well an affinity of tasks says which auxiliary task gains which main task.

`gain` is a number for each ordered pair, indexed by (main, aux), as the column of `gains.gains`; `affinity` a table of
main by auxiliary task, as of `affinities`: more is to gain more. What is on its diagonal is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from fastmtl.errors import UserError
from fastmtl.relations.predictor import GainPredictor, main_task_folds
from fastmtl.stats import Paired, paired

if TYPE_CHECKING:
    from pandas import DataFrame, Series


@dataclass(frozen=True)
class Agreement:
    """How one affinity and the gains agree, over M main tasks.

    `by_main` has a row a main task: `spearman`, and for each k `regret@k`, by how much the best gain of all exceeds the
    best among the k auxiliary tasks of highest affinity; `random_regret@k`, its expectation where these are drawn at
    random; `top_gain@k`, the mean gain of the k. `mean_gain` is that of all, and what random ones have. Means over
    main tasks are `by_main.mean()`.

    `spearman` is the mean over main tasks with Student's interval. It takes main tasks for independent, but pairs share
    models: it is too narrow. `all_pairs` is the correlation over all pairs at once, to which differences between main
    tasks contribute.
    """

    by_main: DataFrame
    spearman: Paired
    all_pairs: float


def agreement(gain: Series, affinity: DataFrame, ks: Sequence[int] = (1, 2, 3)) -> Agreement:
    """Compare an affinity with the gains of the same pairs; equal affinities are ordered by name.

    `UserError` for a pair without affinity, values that are no numbers, fewer than two main tasks, a k beyond the
    auxiliary tasks, and gains or affinities that are all the same for a main task: they have no order.
    """
    from pandas import DataFrame
    from scipy.stats import spearmanr

    pairs = _pairs(gain, affinity)
    by_main = DataFrame({main: _of_main(str(main), own, ks) for main, own in pairs.groupby("main", sort=False)}).T
    if len(by_main) < 2:
        raise UserError(f"agreement is over main tasks, and there is {len(by_main)}; use the gains of two or more")
    mean = paired(by_main["spearman"], np.zeros(len(by_main)))
    return Agreement(by_main, mean, float(spearmanr(pairs["affinity"], pairs["gain"]).statistic))


def predicted(x: DataFrame, gain: Series) -> DataFrame:
    """Probability of a gain, main by auxiliary task, from a predictor that has seen no pair of that main task.

    `x` as of `features.pair_table`. What it has seen is the main task as an auxiliary one, in models that the held-out
    pairs share. Errors as of `GainPredictor.fit`.
    """
    from pandas import Series, concat

    parts = [
        Series(GainPredictor.fit(x.iloc[fit], gain.iloc[fit]).probability(x.iloc[out]), x.index[out])
        for fit, out in main_task_folds(x)
    ]
    return concat(parts).unstack("aux")


def _pairs(gain: Series, affinity: DataFrame) -> DataFrame:
    """Columns gain and affinity by (main, aux), every one a number."""
    from pandas import DataFrame

    mains, auxes = (gain.index.unique(level) for level in ("main", "aux"))
    for main, aux in product(mains, auxes):
        if main != aux and (main, aux) not in gain.index:
            raise UserError(f"there is no gain of {main!r} with {aux!r}; run that pair")
    known = affinity.rename_axis(index="main", columns="aux").stack().reindex(gain.index)
    pairs = DataFrame({"gain": gain, "affinity": known})
    for column in pairs:
        for main, aux in pairs.index[~np.isfinite(pairs[column])]:
            raise UserError(f"the {column} of {main!r} with {aux!r} is missing or no number; compute it again")
    return pairs


def _of_main(main: str, own: DataFrame, ks: Sequence[int]) -> dict[str, float]:
    """The row of `Agreement.by_main` of one main task; `own` has its pairs."""
    from scipy.stats import spearmanr

    for column in own:
        if own[column].nunique() < 2:
            raise UserError(f"the {column} of {main!r} is the same with all auxiliary tasks: no order; leave it out")
    if wrong := [k for k in ks if not 1 <= k <= len(own)]:
        raise UserError(f"k={wrong[0]} is out of range; {main!r} has {len(own)} auxiliary tasks")
    ranked = own.sort_index(level="aux").sort_values("affinity", ascending=False, kind="stable")["gain"].to_numpy()
    ascending, n = np.sort(ranked), len(ranked)
    values = {"spearman": float(spearmanr(own["affinity"], own["gain"]).statistic), "mean_gain": float(ranked.mean())}
    for k in ks:
        # The j-th smallest is the best of k in as many draws as there are ways to draw the others below it.
        random_best = sum(comb(j, k - 1) * float(one) for j, one in enumerate(ascending)) / comb(n, k)
        values |= {
            f"regret@{k}": float(ascending[-1] - ranked[:k].max()),
            f"random_regret@{k}": float(ascending[-1]) - random_best,
            f"top_gain@{k}": float(ranked[:k].mean()),
        }
    return values
