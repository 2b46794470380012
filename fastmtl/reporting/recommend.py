"""The answer of a study in words: which arm to use, by how much it is better, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

from fastmtl.reporting.compare import BOTH, Arm, beats_alone, groups_of, in_points, key_of, named, tested
from fastmtl.reporting.frame import ALONE
from fastmtl.reporting.row_noise import RowNoise

if TYPE_CHECKING:
    from pandas import DataFrame

FEW_SEEDS = 5
"""Below this nothing is recommended: seed noise on small primaries is several points (Dodge et al., 2020)."""


def recommendation(
    cells: DataFrame, comparisons: DataFrame, by_rows: RowNoise | None = None, same: DataFrame | None = None
) -> str:
    """What to do about this primary, in a few sentences, from `compare.comparisons` and, as `same`, `compute.matched`.

    An arm is better if it is significantly better than the primary alone, without and with the multi-task stage, as far
    as the study has these (`ALONE`). The cheapest in FLOPs of the better arms that no other of them beats significantly
    is recommended, or else no auxiliary data. On fewer than `FEW_SEEDS` seeds it is said what was seen, and nothing is
    recommended.
    """
    primary, groups = cells["primary"].iloc[0], groups_of(cells)
    alone = {arm for arm, selection in zip(cells["arm"], cells["selection"]) if selection in ALONE}
    rows = comparisons[comparisons["reference"].isin(alone)]
    if not len(rows):
        return f"{primary}: nothing can be recommended without cells of `none` and of another arm."
    n = int(rows["n"].max())
    if n < FEW_SEEDS:
        return f"{primary}: {_so_far(groups, rows, alone)} {_too_few(rows, n)}"
    enough = rows[(rows["n"] >= FEW_SEEDS) & (rows["covers"] == BOTH)]
    if not len(enough):
        return (
            f"{primary}: nothing can be recommended, since how much of a difference is due to the validation rows is "
            "unknown: the cells' predictions are gone; repeat the cells' commands."
        )
    better = {key: row for key, row in beats_alone(enough).items() if key[0] not in alone}
    if not better:
        references = " and ".join(f"`{name}`" for name in dict.fromkeys(enough["reference"]))
        answer = f"use no auxiliary data; no arm is significantly better than {references} over {n} seeds."
        longer = enough[enough["arm"].isin(alone) & enough["significant"] & (enough["mean"] > 0)]
        for row in longer.nlargest(1, "mean").to_dict("records"):
            answer += f" Train the primary alone, but longer: {_above(groups, row)}."
        return f"{primary}: {answer} {_seen(enough)}"
    pairs = list(combinations(better, 2))
    pairwise = tested(cells, groups, pairs, by_rows)
    beaten = {pair[mean > 0] for pair, mean, real in zip(pairs, pairwise["mean"], pairwise["significant"]) if real}
    best = min((key for key in better if key not in beaten), key=lambda key: groups[key]["total_flops"].mean())
    return (
        f"{primary}: use {_above(groups, better[best])}, the cheapest of {len(better)} better "
        f"arm{'s' * (len(better) != 1)} that no other one significantly beats.{_instead(best, same)} {_seen(enough)}"
    )


def _above(groups: dict[Arm, DataFrame], row: Mapping[Any, Any]) -> str:
    """An arm, how much better it is than its reference, and what both cost."""
    flops = groups[key_of(row)]["total_flops"].mean()
    other = next(group["total_flops"].mean() for (arm, _), group in groups.items() if arm == row["reference"])
    p = "" if math.isnan(row["p_holm"]) else f", p = {row['p_holm']:.2g} after Holm"
    return (
        f"{named(*key_of(row))}: {in_points(row['mean'])} above `{row['reference']}` ({_interval(row)}{row['n']} "
        f"seed{'s' * (row['n'] != 1)}{p}), for {flops / 1e12:.3g} TFLOP in total, {flops / other:.3g} times as much"
    )


def _interval(row: Mapping[Any, Any]) -> str:
    return "" if math.isnan(row["low"]) else f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}, "


def _instead(arm: Arm, same: DataFrame | None) -> str:
    """How it stands to the best that as much compute buys otherwise."""
    for row in () if same is None else same[same["n"] > 0].to_dict("records"):
        if key_of(row) == arm:
            gain = f"{100 * (row['score'] - row['reached']):+.1f} points ({_interval(row)}{row['n']} seeds)"
            return f" Against the best that as much compute buys otherwise, {row['alternative']}: {gain}."
    return ""


def _so_far(groups: dict[Arm, DataFrame], rows: DataFrame, alone: set[str]) -> str:
    """The highest mean, where no more can be said."""
    mean = {key: group["score"].mean() for key, group in groups.items()}
    best, strongest = max(mean, key=mean.__getitem__), max((k for k in mean if k[0] in alone), key=mean.__getitem__)
    if best[0] in alone:
        return f"{named(*best)} scores highest so far, {100 * mean[best]:.1f}: no auxiliary data."
    known = {(key_of(row), row["reference"]): row for row in rows.to_dict("records")}.get((best, strongest[0]), {})
    row = {"n": 1, "low": math.nan, "p_holm": math.nan, "mean": math.nan, **known}
    row |= {"arm": best[0], "budget": best[1], "reference": strongest[0]}
    if math.isnan(row["mean"]):  # of fewer than two common seeds
        row["mean"] = mean[best] - mean[strongest]
    better = "; ".join(named(*key) for key in beats_alone(rows) if key[0] not in alone) or "no arm yet"
    return f"the best so far is {_above(groups, row)}. Significantly better than the primary alone: {better}."


def _too_few(rows: DataFrame, n: int) -> str:
    seeds = rows["seeds_for_point"].max()
    more = "" if math.isnan(seeds) else f"; to see an effect of one point takes about {seeds:,.0f}"
    if math.isinf(seeds):
        more = "; on these validation rows no number of seeds shows an effect of one point"
    least = f"{FEW_SEEDS} at least, as with seed=range({FEW_SEEDS})"
    return f"{n} seed{'s' * (n != 1)}, too few to recommend anything ({least}{more})."


def _seen(enough: DataFrame) -> str:
    """What could have been seen."""
    if enough["detectable"].isna().all():
        return "All arms make the same predictions with every seed, so what could have been seen is unknown."
    return (
        f"Effects below {in_points(enough['detectable'].max())} would not have been seen reliably (80 % power); up to "
        f"{100 * enough['row_share'].max():.0f} % of the variance is due to the validation rows, and more seeds cannot "
        "remove it."
    )
