"""How well an affinity of tasks foretells which auxiliary task gains which main task.

`gain` is a number for each ordered pair, indexed by (main, aux), as the column of `gains.gains`; `affinity` a table of
main by auxiliary task, as of `affinities`: more is to gain more. What is on its diagonal is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
from pandas import DataFrame, Series, concat
from scipy.stats import spearmanr

from fastmtl.errors import UserError
from fastmtl.relations.predictor import GainPredictor, main_task_folds
from fastmtl.stats import Paired, paired


@dataclass(frozen=True)
class Agreement:
    """How one affinity and the gains agree.

    Args:
        by_main: A row per main task: `spearman`; for each k `regret@k`, by how much the best gain exceeds the best
            among the k auxiliary tasks of highest affinity, `random_regret@k`, its expectation for k random ones, and
            `top_gain@k`, the mean gain of the k; and `mean_gain`, that of all.
        spearman: Its mean over main tasks with Student's interval, too narrow because pairs share models.
        all_pairs: The rank correlation over all pairs at once, to which differences between main tasks contribute.
    """

    by_main: DataFrame
    spearman: Paired
    all_pairs: float


def agreement(gain: Series, affinity: DataFrame, ks: Sequence[int] = (1, 2, 3)) -> Agreement:
    """Compare an affinity with the gains of the same pairs; equal affinities are ordered by name.

    Raises:
        UserError: A pair has no affinity or gain, there are fewer than two main tasks or than k auxiliary ones, or all
            gains or affinities of a main task are the same.
    """
    mains, auxes = (gain.index.unique(level) for level in ("main", "aux"))
    for main, aux in product(mains, auxes):
        if main != aux and (main, aux) not in gain.index:
            raise UserError(f"there is no gain of {main!r} with {aux!r}; run that pair")
    known = affinity.rename_axis(index="main", columns="aux").stack().reindex(gain.index)
    pairs = DataFrame({"gain": gain, "affinity": known})
    for column in pairs:
        for main, aux in pairs.index[~np.isfinite(pairs[column])]:
            raise UserError(f"the {column} of {main!r} with {aux!r} is missing or no number; compute it again")
    by_main = DataFrame({main: _of_main(str(main), own, ks) for main, own in pairs.groupby("main", sort=False)}).T
    if len(by_main) < 2:
        raise UserError(f"agreement is over main tasks, and there is {len(by_main)}; use the gains of two or more")
    mean = paired(by_main["spearman"], np.zeros(len(by_main)))
    return Agreement(by_main, mean, float(spearmanr(pairs["affinity"], pairs["gain"]).statistic))


def predicted(x: DataFrame, gain: Series) -> DataFrame:
    """Probability of a gain, main by auxiliary task, from a predictor that has seen no pair of that main task.

    It has seen the main task as an auxiliary one. `x` as of `features.pair_table`; errors as of `GainPredictor.fit`.
    """
    return concat(
        Series(GainPredictor.fit(x.iloc[fit], gain.iloc[fit]).probability(x.iloc[out]), x.index[out])
        for fit, out in main_task_folds(x)
    ).unstack("aux")


def _of_main(main: str, own: DataFrame, ks: Sequence[int]) -> dict[str, float]:
    """The row of `Agreement.by_main` of one main task; `own` has its pairs."""
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
        ways = [comb(j, k - 1) for j in range(n)]
        values[f"regret@{k}"] = float(ascending[-1] - ranked[:k].max())
        values[f"random_regret@{k}"] = float(ascending[-1] - np.dot(ways, ascending) / comb(n, k))
        values[f"top_gain@{k}"] = float(ranked[:k].mean())
    return values
