"""What arms are worth for what they cost: against the best use of the same compute, and against all rows.

Cells are of one setting, rows of `reporting.frame.frame`; `by_rows` is `row_noise(cells)`, for callers that have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.reporting.compare import DIFFERENCE, POINT, Arm, baseline, difference, groups_of, named, paired, sums_of
from fastmtl.reporting.frame import ALONE, BASELINES
from fastmtl.reporting.row_noise import RowNoise, row_noise
from fastmtl.stats import at_cost

if TYPE_CHECKING:
    from pandas import DataFrame

Groups = dict[Arm, "DataFrame"]

_LENGTH = re.compile(r"\S+\.(epochs|max_steps)=\S+")
"""In an arm's name: how long it was trained."""


def matched(cells: DataFrame, by_rows: RowNoise | None = None) -> DataFrame:
    """Every arm but the baselines against the best that can be had for its total FLOPs without choosing rows.

    Alternatives are the baselines that cost no more, trained as long as in any cell, and what lies between two of them
    (`stats.at_cost`, per seed): between the epochs of `none` or of `primary_only`, and between the budgets of `random`
    from no auxiliary rows to all of them. The best leaves the smallest mean difference over the seeds in common, two or
    more if there are any, which favours the alternative. `score` and `reached` are means over these `n` seeds,
    `alternative` names the baseline or the two; the others are of the difference, without a correction.
    """
    from pandas import DataFrame

    groups = groups_of(cells)
    by_rows, scores = by_rows or row_noise(cells), cells.set_index("id")["score"]
    rows = []
    for (arm, budget), group in groups.items():
        if group["selection"].iloc[0] in BASELINES:
            continue
        flops = group["total_flops"].mean()
        row = {"arm": arm, "budget": budget, "flops": flops, "score": math.nan, "reached": math.nan, "alternative": ""}
        best = False, -math.inf
        for name, weights in _alternatives(groups, group["variant"].iloc[0], flops):
            seeds = [seed for seed in group.index if weights.get(seed)]
            own, other = [{group["id"][seed]: 1.0} for seed in seeds], [weights[seed] for seed in seeds]
            score, reached = (sums_of(one, scores).mean() if seeds else math.nan for one in (own, other))
            if (strength := (len(seeds) > 1, reached - score)) > best:
                best = strength
                row |= {"score": score, "reached": reached, "alternative": name}
                row |= difference(own, other, scores, by_rows)[0]
        rows.append({"n": 0, "covers": "", **row})
    columns = ["arm", "budget", "flops", "score", "alternative", "reached", *DIFFERENCE]
    return DataFrame(rows, columns=columns).astype({"budget": cells["budget"].dtype})


def _alternatives(groups: Groups, variant: str, flops: float) -> Iterator[tuple[str, dict[int, dict[str, float]]]]:
    """Name, and seed -> weights of cells, of what an arm of this variant could have been instead."""
    from pandas import concat

    rest = _LENGTH.sub("", variant).strip()
    longer = [
        [key for key, group in groups.items() if group["selection"].iloc[0] == name
         and _LENGTH.sub("", group["variant"].iloc[0]).strip() in ("", rest)]
        for name in ALONE
    ]  # fmt: skip
    labels = [baseline(groups, name, variant) for name in BASELINES]
    no_rows = labels[1] or labels[0]  # `random` without rows is the primary alone through both stages
    by_rows = [key for key in groups if key[0] in (no_rows, *labels[2:])]
    for curve in (*longer, by_rows):
        for key in curve:
            if groups[key]["total_flops"].mean() <= flops:
                yield named(*key), {seed: {cell: 1.0} for seed, cell in groups[key]["id"].items()}
        if len(curve) > 1:
            points = concat([groups[key].assign(name=named(*key)) for key in curve])
            weights = {seed: _weights_at(points.loc[[seed]], flops) for seed in points.index.unique()}
            used = {cell for one in weights.values() for cell in one}
            between = points[points["id"].isin(used)].sort_values("total_flops", kind="stable")["name"].unique()
            if len(between) > 1:
                yield " to ".join(between[[0, -1]]), weights


def _weights_at(curve: DataFrame, flops: float) -> dict[str, float]:
    """`at_cost` as weights of the curve's cells; none outside of it."""
    weights = [float(at_cost(curve["total_flops"], unit, flops)) for unit in np.eye(len(curve))]
    return {} if math.isnan(weights[0]) else {cell: w for cell, w in zip(curve["id"], weights) if w}


def reaching(cells: DataFrame, by_rows: RowNoise | None = None) -> DataFrame:
    """The smallest budget with which each arm reaches `full`, which is to score at most `POINT` below it.

    One row an arm. `budget`, `rows`: of the smallest one whose mean difference to the `full` of its variant, over the
    seeds of both, is -`POINT` or more; missing where none is. `least`: the rows of the smallest one whose 95 % interval
    (`stats.half_width`) does not exclude that; `most`: of the smallest one whose interval shows it. `share` of the rows
    of `full`; `flops`, and the `speedup` over `full`; the others are of the difference.
    """
    from pandas import DataFrame

    groups = groups_of(cells)
    by_rows, scores = by_rows or row_noise(cells), cells.set_index("id")["score"]
    rows: dict[str, dict[str, Any]] = {}
    for key, group in sorted(groups.items(), key=lambda one: one[1]["aux_rows"].mean()):
        label = baseline(groups, "full", group["variant"].iloc[0])
        if label is None or key[0] == label:
            continue
        full, count, flops = groups[label, None], group["aux_rows"].mean(), group["total_flops"].mean()
        own, other = paired(group, full)
        found, row = difference(own, other, scores, by_rows)[0], rows.setdefault(key[0], {"arm": key[0]})
        mean = (sums_of(own, scores) - sums_of(other, scores)).mean() if own else math.nan
        if mean >= -POINT and "rows" not in row:
            share, speedup = count / full["aux_rows"].mean(), full["total_flops"].mean() / flops
            row |= {"budget": key[1], "rows": count, "share": share, "flops": flops, "speedup": speedup}
            row |= {**found, "mean": mean}
        for end, bound in (("least", found["high"]), ("most", found["low"])):
            if bound >= -POINT:
                row.setdefault(end, count)
    columns = ["arm", "budget", "rows", "least", "most", "share", "flops", "speedup", *DIFFERENCE]
    order = [rows[arm] for arm in dict.fromkeys(arm for arm, _ in groups) if arm in rows]
    return DataFrame(order, columns=columns).astype({"budget": cells["budget"].dtype})
