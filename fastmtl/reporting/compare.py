"""Which differences between arms are real: paired tests against the baselines.

All functions but `check_comparable` take the cells of one setting, rows of `reporting.frame.frame`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.reporting.frame import ALONE, BASELINES, SETTING, arms
from fastmtl.reporting.row_noise import RowNoise, Sums, row_noise
from fastmtl.stats import Noise, detectable, half_width, holm, noise, p_value, seeds_needed

if TYPE_CHECKING:
    from pandas import DataFrame

Arm = tuple[str, Any]
"""An arm's label and its budget, None for arms without one."""

BOTH = "seeds and rows"
"""In the column `covers`: the interval and p are of both sources of noise. Without it nothing is significant."""

LEVEL = 0.05
"""Of the tests, for the whole family."""

POINT = 0.01
"""An effect of one point, for `seeds_for_point`, and how near to `full` an arm must come to reach it."""


def check_comparable(cells: DataFrame) -> None:
    """A `UserError` where the cells are none, or one primary's are of several settings, double or without a score.

    Pools that differ in the number of the primary's rows are compared by that number.
    """
    if not len(cells):
        raise UserError("no finished cells to compare; run some with: fastmtl -m selection=none,random,full ...")
    for primary, group in cells.groupby("primary", sort=False):
        for key in SETTING[1:]:
            sizes = group["primary_rows"].nunique() if key == "pool" and "primary_rows" in group else 1
            if len(values := sorted(group[key].unique())) > max(1, sizes):
                raise UserError(
                    f"{primary} has cells of several values of {key}: {', '.join(values)}; "
                    f"their numbers do not compare, so keep one: --where {key}={values[0]}"
                )
        for _, twins in group.groupby(["pool", "arm", "budget", "seed"], dropna=False):
            if len(twins) > 1:
                first, second = twins["id"][:2]
                raise UserError(
                    f"{primary}: cells {first} and {second} are both {named(*key_of(twins.iloc[0]))}, "
                    f"seed {twins['seed'].iloc[0]}; keep one: --where id={first}"
                )
        if len(undefined := group[group["score"].isna()]):
            raise UserError(
                f"{primary}: {undefined['metric'].iloc[0]} of {named(*key_of(undefined.iloc[0]))}, "
                f"seed {undefined['seed'].iloc[0]}, is undefined, its predictions are constant; train it longer"
            )


def comparisons(cells: DataFrame, references: Sequence[str] = BASELINES, by_rows: RowNoise | None = None) -> DataFrame:
    """One row an arm, budget and reference; all rows together are the family of Holm's correction.

    `by_rows` is `row_noise(cells)`, for callers that have it. A reference with budgets is taken at the arm's own, and
    of two references that lack a budget the later one is compared with the earlier. `reference` is an arm's label, of
    the arm's own variant where there is one.

    `n` seeds that both have; `mean` and `sd` over them of the score's difference, its 95 % interval `low`, `high`, and
    `p`, `p_holm`: of seeds and validation rows together (`stats.half_width`), as `covers` says ("seeds and rows").
    Without a cell's stored predictions the rows' part is unknown: then it says "seeds", and nothing is significant.
    `significant`: p_holm < 0.05. `row_share`: the share of the difference's variance that more seeds cannot remove.
    `detectable`: the minimum effect that is found with 80 % power; `seeds_needed` for the mean, `seeds_for_point` for
    an effect of 0.01, infinite where no number is enough: at Holm's strictest step, 0.05 over the family's size. These
    four are NaN where the rows' part is unknown, and everything is with fewer than two common seeds.
    """
    groups = groups_of(cells)
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
    return tested(cells, groups, pairs, by_rows)


def tested(
    cells: DataFrame, groups: dict[Arm, DataFrame], pairs: Sequence[tuple[Arm, Arm]], by_rows: RowNoise | None
) -> DataFrame:
    """`comparisons` of these pairs, a family of their own."""
    from pandas import DataFrame

    by_rows, scores = by_rows or row_noise(cells), cells.set_index("id")["score"]
    rows: list[dict[str, Any]] = []
    noises: list[Noise | None] = []
    for key, other in pairs:
        found, known = difference(*paired(groups[key], groups[other]), scores, by_rows)
        rows.append({"arm": key[0], "budget": key[1], "reference": other[0], **found})
        noises.append(known if found["covers"] == BOTH else None)
    table = DataFrame(rows, columns=["arm", "budget", "reference", *DIFFERENCE])
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


DIFFERENCE = ("n", "mean", "sd", "low", "high", "p", "covers")
_PLANNED = ("row_share", "detectable", "seeds_needed", "seeds_for_point")


def difference(a: Sums, b: Sums, scores: Any, by_rows: RowNoise) -> tuple[dict[str, Any], Noise | None]:
    """Columns `DIFFERENCE` of a - b over their seeds, and what makes it uncertain."""
    if len(a) < 2:
        return {"n": len(a), **dict.fromkeys(DIFFERENCE[1:-1], math.nan), "covers": ""}, None
    difference = sums_of(a, scores) - sums_of(b, scores)
    covariance = by_rows.covariance_of([{**one, **{cell: -w for cell, w in two.items()}} for one, two in zip(a, b)])
    known = noise(difference, covariance, math.inf if covariance is None else by_rows.rows)
    mean, half = float(difference.mean()), float(half_width(known)) or math.nan
    return {
        "n": len(a), "mean": mean, "sd": math.sqrt(known.seeds), "low": mean - half, "high": mean + half,
        "p": float(p_value(mean, known)), "covers": "seeds" if covariance is None else BOTH,
    }, known  # fmt: skip


def paired(group: DataFrame, other: DataFrame) -> tuple[Sums, Sums]:
    """The cells of the seeds that both have, of `groups_of`."""
    seeds = group.index.intersection(other.index)
    return [{cell: 1.0} for cell in group.loc[seeds, "id"]], [{cell: 1.0} for cell in other.loc[seeds, "id"]]


def beats_alone(compared: DataFrame) -> dict[Arm, dict[str, Any]]:
    """Arms that are significantly better than the primary alone, in all ways that the study has (`ALONE`), and their
    difference to the best of these."""
    found: dict[Arm, list[dict[Any, Any]]] = {}
    for row in compared.to_dict("records"):
        if row["reference"].split()[0] in ALONE:  # a label may go on with its variant
            found.setdefault(key_of(row), []).append(row)
    return {
        key: min(rows, key=lambda row: row["mean"])
        for key, rows in found.items()
        if all(row["significant"] and row["mean"] > 0 for row in rows)
    }


def sums_of(sums: Sums, scores: Any) -> np.ndarray:
    """(n,)"""
    return np.array([sum(weight * scores[cell] for cell, weight in one.items()) for one in sums])


def groups_of(cells: DataFrame) -> dict[Arm, DataFrame]:
    """The cells of each arm and budget, by seed."""
    return {key_of(group.iloc[0]): group.set_index("seed") for _, _, group in arms(cells)}


def key_of(cell: Any) -> Arm:
    """Arm and budget of a cell or of a row of comparisons."""
    import pandas

    return cell["arm"], None if pandas.isna(cell["budget"]) else cell["budget"]


def baseline(groups: dict[Arm, DataFrame], reference: str, variant: str) -> str | None:
    """The label of the reference of this variant, or else of no variant."""
    names = {arm for arm, _ in groups}
    return next((name for name in (f"{reference} {variant}", reference) if name in names), None)


def _reference(groups: dict[Arm, DataFrame], key: Arm, reference: str) -> Arm | None:
    """The reference at the arm's budget, or else without one."""
    name = baseline(groups, reference, groups[key]["variant"].iloc[0])
    return next(((name, budget) for budget in (key[1], None) if name and (name, budget) in groups), None)


def named(arm: str, budget: Any) -> str:
    """An arm as sentences name it."""
    return f"`{arm}`" if budget is None else f"`{arm}`, budget {budget:,}"


def in_points(effect: float) -> str:
    """An effect in words."""
    return f"{100 * effect:.1f} points"
