"""Which differences between arms are real: paired tests against the baselines, and a recommendation from them.

All functions but `check_comparable` take the cells of one setting, rows of `reporting.frame.frame`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.reporting.frame import BASELINES, SETTING, arms
from fastmtl.reporting.row_noise import RowNoise, Sums, row_noise
from fastmtl.stats import Noise, at_cost, detectable, half_width, holm, noise, p_value, seeds_needed

if TYPE_CHECKING:
    from pandas import DataFrame

Arm = tuple[str, Any]
"""An arm's label and its budget, None for arms without one."""

FEW_SEEDS = 5
"""Below this nothing is recommended: seed noise on small primaries is several points (Dodge et al., 2020)."""

BOTH = "seeds and rows"
"""In the column `covers`: the interval and p are of both sources of noise. Without it nothing is significant."""

LEVEL = 0.05
"""Of the tests, for the whole family."""

POINT = 0.01
"""An effect of one point, for `seeds_for_point`."""


def check_comparable(cells: DataFrame) -> None:
    """A `UserError` where the cells are none, or one primary's are of several settings, double or without a score."""
    if not len(cells):
        raise UserError("no finished cells to compare; run some with: fastmtl -m selection=none,random,full ...")
    for primary, group in cells.groupby("primary", sort=False):
        for key in SETTING[1:]:
            if len(values := sorted(group[key].unique())) > 1:
                raise UserError(
                    f"{primary} has cells of several values of {key}: {', '.join(values)}; "
                    f"their numbers do not compare, so keep one: --where {key}={values[0]}"
                )
        for _, twins in group.groupby(["arm", "budget", "seed"], dropna=False):
            if len(twins) > 1:
                first, second = twins["id"][:2]
                raise UserError(
                    f"{primary}: cells {first} and {second} are both {_named(*_key(twins.iloc[0]))}, "
                    f"seed {twins['seed'].iloc[0]}; keep one: --where id={first}"
                )
        if len(undefined := group[group["score"].isna()]):
            raise UserError(
                f"{primary}: {undefined['metric'].iloc[0]} of {_named(*_key(undefined.iloc[0]))}, "
                f"seed {undefined['seed'].iloc[0]}, is undefined, its predictions are constant; train it longer"
            )


def comparisons(cells: DataFrame, references: Sequence[str] = BASELINES, by_rows: RowNoise | None = None) -> DataFrame:
    """One row an arm, budget and reference; all rows together are the family of Holm's correction.

    `by_rows` is `row_noise(cells)`, for callers that need it more than once; so in the functions below.

    A reference with budgets is taken at the arm's own, and of two references that lack a budget the later one is
    compared with the earlier. `reference` is an arm's label, of the arm's own variant where there is one.

    `n` seeds that both have; `mean` and `sd` over them of the score's difference, its 95 % interval `low`, `high`, and
    `p`, `p_holm`: of seeds and validation rows together (`stats.half_width`), as `covers` says ("seeds and rows").
    Without a cell's stored predictions the rows' part is unknown: then it says "seeds", and nothing is significant.
    `significant`: p_holm < 0.05. `row_share`: the share of the difference's variance that more seeds cannot remove.
    `detectable`: the minimum effect that is found with 80 % power; `seeds_needed` for the mean, `seeds_for_point` for
    an effect of 0.01, infinite where no number is enough: at Holm's strictest step, 0.05 over the family's size. These
    four are NaN where the rows' part is unknown, and everything is with fewer than two common seeds.
    """
    groups = _groups(cells)
    pairs = []
    for key, group in groups.items():
        selection = group["selection"].iloc[0]
        for reference in references:
            other = _reference(groups, key, reference)
            if other is None or other == key:
                continue
            mirrored = selection in references and references.index(selection) < references.index(reference)
            if not (mirrored and other[1] == key[1]):
                pairs.append((key, other))
    return _tested(cells, groups, pairs, by_rows)


def matched(cells: DataFrame, by_rows: RowNoise | None = None) -> DataFrame:
    """Every arm but the baselines against what random rows reach for the same total FLOPs.

    Per seed, the curve of random rows goes from `none` (no rows) over the budgets of `random` to `full` (all rows), and
    is read at the arm's mean `flops` (`stats.at_cost`). `score` and `random` are means over the `n` seeds whose curve
    gets there, none for an arm that costs more than `full`; the others are of their difference, without a correction.
    """
    from pandas import DataFrame

    groups = _groups(cells)
    by_rows, scores = by_rows or row_noise(cells), cells.set_index("id")["score"]
    rows = []
    for (arm, budget), group in groups.items():
        if group["selection"].iloc[0] in BASELINES:
            continue
        labels = [_baseline(groups, name, group["variant"].iloc[0]) for name in BASELINES]
        flops = group["total_flops"].mean()
        reached = {seed: _weights_at(curve, flops) for seed, curve in cells[cells["arm"].isin(labels)].groupby("seed")}
        seeds = [seed for seed in group.index if reached.get(seed)]
        own = [{group["id"][seed]: 1.0} for seed in seeds]
        random = [reached[seed] for seed in seeds]
        rows.append({
            "arm": arm, "budget": budget, "flops": flops,
            "score": _sums(own, scores).mean() if seeds else math.nan,
            "random": _sums(random, scores).mean() if seeds else math.nan,
            **difference(own, random, scores, by_rows)[0],
        })  # fmt: skip
    columns = ["arm", "budget", "flops", "score", "random", *_DIFFERENCE]
    return DataFrame(rows, columns=columns).astype({"budget": cells["budget"].dtype})


def recommendation(cells: DataFrame, comparisons: DataFrame, by_rows: RowNoise | None = None) -> str:
    """What to do about this primary, in a sentence or two.

    Without an arm that is significantly better than `none`: no auxiliary data. Else the cheapest in FLOPs of the better
    arms that no other of them beats significantly. Nothing is recommended on fewer than `FEW_SEEDS` seeds.
    """
    primary = cells["primary"].iloc[0]
    groups = _groups(cells)
    rows = comparisons[comparisons["reference"].isin(cells["arm"][cells["selection"] == "none"])]
    if not len(rows):
        return f"{primary}: nothing can be recommended without cells of `none` and of another arm."
    n = int(rows["n"].max())
    if n < FEW_SEEDS:
        seeds = rows["seeds_for_point"].max()
        more = "" if math.isnan(seeds) else f"; to see an effect of one point takes about {seeds:,.0f}"
        if math.isinf(seeds):
            more = "; on these validation rows no number of seeds shows an effect of one point"
        return f"{primary}: {n} seed{'s' * (n != 1)}, too few to recommend anything ({FEW_SEEDS} at least{more})."
    enough = rows[(rows["n"] >= FEW_SEEDS) & (rows["covers"] == BOTH)]
    if not len(enough):
        return (
            f"{primary}: nothing can be recommended, since how much of a difference is due to the validation rows is "
            "unknown: the cells' predictions are gone; repeat the cells' commands."
        )
    seen = "All arms make the same predictions with every seed, so what could have been seen is unknown."
    if enough["detectable"].notna().any():
        seen = (
            f"Effects below {_points(enough['detectable'].max())} would not have been seen reliably (80 % power); up to"
            f" {100 * enough['row_share'].max():.0f} % of the variance is due to the validation rows, and more seeds "
            "cannot remove it."
        )
    better = enough[enough["significant"] & (enough["mean"] > 0)]
    if not len(better):
        return f"{primary}: use no auxiliary data; no arm is significantly better than `none` over {n} seeds. {seen}"
    keys = [_key(row) for _, row in better.iterrows()]
    pairs = list(combinations(keys, 2))
    told = _tested(cells, groups, pairs, by_rows)
    beaten = {pair[mean > 0] for pair, mean, real in zip(pairs, told["mean"], told["significant"]) if real}
    best = min((key for key in keys if key not in beaten), key=lambda key: groups[key]["total_flops"].mean())
    row = better.iloc[keys.index(best)]
    return (
        f"{primary}: use {_named(*best)}: {_points(row['mean'])} above `none` (95 % interval {_points(row['low'])} to "
        f"{_points(row['high'])}, {row['n']} seeds, p = {row['p_holm']:.2g} after Holm), the cheapest of "
        f"{len(keys)} better arm{'s' * (len(keys) != 1)} that no other one significantly beats. {seen}"
    )


def _tested(
    cells: DataFrame, groups: dict[Arm, DataFrame], pairs: Sequence[tuple[Arm, Arm]], by_rows: RowNoise | None
) -> DataFrame:
    """`comparisons` of these pairs, a family of their own."""
    from pandas import DataFrame

    by_rows, scores = by_rows or row_noise(cells), cells.set_index("id")["score"]
    rows: list[dict[str, Any]] = []
    noises: list[Noise | None] = []
    for key, other in pairs:
        seeds = groups[key].index.intersection(groups[other].index)
        one, two = ([{cell: 1.0} for cell in groups[k].loc[seeds, "id"]] for k in (key, other))
        found, known = difference(one, two, scores, by_rows)
        rows.append({"arm": key[0], "budget": key[1], "reference": other[0], **found})
        noises.append(known if found["covers"] == BOTH else None)
    table = DataFrame(rows, columns=["arm", "budget", "reference", *_DIFFERENCE])
    table = table.astype({"budget": cells["budget"].dtype})
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    table["significant"] = (table["p_holm"] < LEVEL) & (table["covers"] == BOTH)
    alpha = LEVEL / max(1, table["p"].notna().sum())
    planned = np.full((len(table), len(_PLANNED)), math.nan)
    for row, mean, known in zip(planned, table["mean"], noises):
        if known is not None:
            needed = (seeds_needed(effect, known, alpha=alpha) for effect in (mean, POINT))
            row[:] = known.row_share, detectable(known, alpha=alpha), *needed
    table[list(_PLANNED)] = planned
    return table


_DIFFERENCE = ("n", "mean", "sd", "low", "high", "p", "covers")
_PLANNED = ("row_share", "detectable", "seeds_needed", "seeds_for_point")


def difference(a: Sums, b: Sums, scores: Any, by_rows: RowNoise) -> tuple[dict[str, Any], Noise | None]:
    """Columns `_DIFFERENCE` of a - b over their seeds, and what makes it uncertain."""
    if len(a) < 2:
        return {"n": len(a), **dict.fromkeys(_DIFFERENCE[1:-1], math.nan), "covers": ""}, None
    difference = _sums(a, scores) - _sums(b, scores)
    covariance = by_rows.covariance_of([{**one, **{cell: -w for cell, w in two.items()}} for one, two in zip(a, b)])
    known = noise(difference, covariance, math.inf if covariance is None else by_rows.rows)
    mean, half = float(difference.mean()), float(half_width(known)) or math.nan
    return {
        "n": len(a), "mean": mean, "sd": math.sqrt(known.seeds), "low": mean - half, "high": mean + half,
        "p": float(p_value(mean, known)), "covers": "seeds" if covariance is None else BOTH,
    }, known  # fmt: skip


def _sums(sums: Sums, scores: Any) -> np.ndarray:
    """(n,)"""
    return np.array([sum(weight * scores[cell] for cell, weight in one.items()) for one in sums])


def _weights_at(curve: DataFrame, flops: float) -> dict[str, float]:
    """`at_cost` as weights of the curve's cells; none outside of it."""
    weights = [float(at_cost(curve["total_flops"], unit, flops)) for unit in np.eye(len(curve))]
    return {} if math.isnan(weights[0]) else {cell: w for cell, w in zip(curve["id"], weights) if w}


def _groups(cells: DataFrame) -> dict[Arm, DataFrame]:
    """The cells of each arm and budget, by seed."""
    return {_key(group.iloc[0]): group.set_index("seed") for _, _, group in arms(cells)}


def _key(cell: Any) -> Arm:
    import pandas

    return cell["arm"], None if pandas.isna(cell["budget"]) else cell["budget"]


def _baseline(groups: dict[Arm, DataFrame], reference: str, variant: str) -> str | None:
    """The label of the reference of this variant, or else of none."""
    names = {arm for arm, _ in groups}
    return next((name for name in (f"{reference} {variant}", reference) if name in names), None)


def _reference(groups: dict[Arm, DataFrame], key: Arm, reference: str) -> Arm | None:
    """The reference at the arm's budget, or else without one."""
    name = _baseline(groups, reference, groups[key]["variant"].iloc[0])
    return next(((name, budget) for budget in (key[1], None) if name and (name, budget) in groups), None)


def _named(arm: str, budget: Any) -> str:
    return f"`{arm}`" if budget is None else f"`{arm}`, budget {budget:,}"


def _points(effect: float) -> str:
    return f"{100 * effect:.1f} points"
