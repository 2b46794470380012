"""Which differences between arms are real: paired tests against the baselines, and a recommendation from them.

All functions but `check_comparable` take the cells of one setting, rows of `reporting.frame.frame`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.errors import UserError
from fastmtl.reporting.frame import BASELINES, SETTING, arms
from fastmtl.stats import at_cost, bootstrap_rows, detectable, holm, paired, resampled_scores, seeds_needed
from fastmtl.tasks.kinds.tagging import NEGATIVE_TAG

if TYPE_CHECKING:
    from pandas import DataFrame

Arm = tuple[str, Any]
"""An arm's label and its budget, None for arms without one."""

FEW_SEEDS = 5
"""Below this nothing is recommended: seed noise on small primaries is several points (Dodge et al., 2020)."""

SIGNIFICANT_SEEDS = 3
"""Below this nothing is called significant: a metric on few rows takes few values, so that two differences are nearly
equal by chance, and a t-test is certain of equal numbers."""

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


def comparisons(cells: DataFrame, references: Sequence[str] = BASELINES) -> DataFrame:
    """One row an arm, budget and reference; all rows together are the family of Holm's correction.

    A reference with budgets is taken at the arm's own, and of two references that lack a budget the later one is
    compared with the earlier. `reference` is an arm's label, of the arm's own variant where there is one.

    `n` seeds that both have; `mean`, `sd` and 95 % interval `low`, `high` of the score's difference; `p`, `p_holm`.
    `rows_low`, `rows_high`: interval over validation rows (`stats.bootstrap_rows`), NaN without stored predictions.
    `significant`: p_holm < 0.05 over `SIGNIFICANT_SEEDS` seeds or more, and the rows' interval, where there is one,
    excludes 0; `rests_on` says which.
    `detectable`: the effect that is found with 80 % power, `seeds_needed` for the mean, `seeds_for_point` for an effect
    of 0.01: at Holm's strictest step, 0.05 over the family's size. All NaN with fewer than two common seeds.
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
    return _tested(groups, pairs)


def matched(cells: DataFrame) -> DataFrame:
    """Every arm but the baselines against what random rows reach for the same total FLOPs.

    Per seed, the curve of random rows goes from `none` (no rows) over the budgets of `random` to `full` (all rows), and
    is read at the arm's mean `flops` (`stats.at_cost`). `score` and `random` are means over the `n` seeds whose curve
    gets there; `mean`, `sd`, `low`, `high`, `p` are of their difference, without a correction. An arm that costs more
    than `full` has n = 0.
    """
    from pandas import DataFrame

    groups = _groups(cells)
    rows = []
    for (arm, budget), group in groups.items():
        if group["selection"].iloc[0] in BASELINES:
            continue
        labels = [_baseline(groups, name, group["variant"].iloc[0]) for name in BASELINES]
        curves = cells[cells["arm"].isin(labels)].groupby("seed")
        flops = group["total_flops"].mean()
        reached = {seed: float(at_cost(curve["total_flops"], curve["score"], flops)) for seed, curve in curves}
        seeds = [seed for seed in group.index if not math.isnan(reached.get(seed, math.nan))]
        own, random = group.loc[seeds, "score"].to_numpy(), np.array([reached[seed] for seed in seeds])
        rows.append({
            "arm": arm, "budget": budget, "flops": flops,
            "score": own.mean() if seeds else math.nan, "random": random.mean() if seeds else math.nan,
            **_difference(own, random),
        })  # fmt: skip
    return DataFrame(rows, columns=["arm", "budget", "flops", "score", "random", *_DIFFERENCE]).astype(
        {"budget": _budgets(groups)}
    )


def recommendation(cells: DataFrame, comparisons: DataFrame) -> str:
    """What to do about this primary, in a sentence or two.

    Without an arm that is significantly better than `none`: no auxiliary data. Else the cheapest in FLOPs of the better
    arms that no other of them beats significantly. Nothing is recommended on fewer than `FEW_SEEDS` seeds.
    """
    primary = cells["primary"].iloc[0]
    groups = _groups(cells)
    rows = comparisons[[_selection(cells, reference) == "none" for reference in comparisons["reference"]]]
    if not len(rows):
        return f"{primary}: nothing can be recommended without cells of `none` and of another arm."
    n, needed = int(rows["n"].max()), rows["seeds_for_point"].max()
    if n < FEW_SEEDS:
        more = "" if math.isnan(needed) else f"; to see an effect of one point takes about {needed:,.0f}"
        return f"{primary}: {n} seed{'s' * (n != 1)}, too few to recommend anything ({FEW_SEEDS} at least{more})."
    enough = rows[rows["n"] >= FEW_SEEDS]
    seen = f"Effects below {_points(enough['detectable'].max())} would not have been seen reliably (80 % power)."
    better = enough[enough["significant"] & (enough["mean"] > 0)]
    if not len(better):
        return f"{primary}: use no auxiliary data; no arm is significantly better than `none` over {n} seeds. {seen}"
    keys = [_key(row) for _, row in better.iterrows()]
    pairs = list(combinations(keys, 2))
    told = _tested(groups, pairs)
    beaten = {pair[mean > 0] for pair, mean, real in zip(pairs, told["mean"], told["significant"]) if real}
    best = min((key for key in keys if key not in beaten), key=lambda key: groups[key]["total_flops"].mean())
    row = better.iloc[keys.index(best)]
    return (
        f"{primary}: use {_named(*best)}: {_points(row['mean'])} above `none` (95 % interval {_points(row['low'])} to "
        f"{_points(row['high'])}, {row['n']} seeds, p = {row['p_holm']:.2g} after Holm), the cheapest of "
        f"{len(keys)} better arm{'s' * (len(keys) != 1)} that no other one significantly beats. {seen}"
    )


def _tested(groups: dict[Arm, DataFrame], pairs: Sequence[tuple[Arm, Arm]]) -> DataFrame:
    """`comparisons` of these pairs, a family of their own."""
    from pandas import DataFrame

    resampled = _resampled(groups[key] for key in dict.fromkeys(chain(*pairs)))
    rows: list[dict[str, Any]] = []
    for key, other in pairs:
        seeds = groups[key].index.intersection(groups[other].index)
        one, two = groups[key].loc[seeds], groups[other].loc[seeds]
        row = {"arm": key[0], "budget": key[1], "reference": other[0]}
        row |= _difference(one["score"].to_numpy(), two["score"].to_numpy())
        ids = [*one["id"], *two["id"]]
        known = len(seeds) > 1 and all(cell in resampled for cell in ids)
        if known:
            of_cell = np.stack([resampled[cell] for cell in ids])
            row["rows_low"], row["rows_high"] = bootstrap_rows(of_cell[: len(seeds)], of_cell[len(seeds) :])
        rows.append(row | {"rests_on": "seeds and rows" if known else "seeds"})
    columns = ["arm", "budget", "reference", *_DIFFERENCE, "rows_low", "rows_high", "rests_on"]
    table = DataFrame(rows, columns=columns).astype({"budget": _budgets(groups)})
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    around_0 = (table["rows_low"] <= 0) & (table["rows_high"] >= 0)  # False where they are NaN
    table["significant"] = (table["p_holm"] < LEVEL) & ~around_0 & (table["n"] >= SIGNIFICANT_SEEDS)
    alpha = LEVEL / max(1, table["p"].notna().sum())
    spread = table["sd"].where(table["sd"] > 0)  # equal differences do not tell it
    table["detectable"] = [detectable(sd, max(n, 2), alpha=alpha) for sd, n in zip(spread, table["n"])]
    table["seeds_needed"] = [seeds_needed(mean, sd, alpha=alpha) for mean, sd in zip(table["mean"], spread)]
    table["seeds_for_point"] = [seeds_needed(POINT, sd, alpha=alpha) for sd in spread]
    return table


_DIFFERENCE = ("n", "mean", "sd", "low", "high", "p")


def _difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    return vars(paired(a, b)) if len(a) > 1 else {"n": len(a), **dict.fromkeys(_DIFFERENCE[1:], math.nan)}


def _resampled(groups: Iterable[DataFrame]) -> dict[str, np.ndarray]:
    """Id -> scores (draws,) on resamples of the validation rows, equal ones for all cells that have their predictions.

    With a fixed seed of its own: the same cells make the same table.
    """
    predictions, labels, rows, metric = {}, np.empty(0), None, ""
    for group in groups:
        for _, cell in group.iterrows():
            path = Path(cell["finetune"]) / "validation.parquet"
            if path.exists():
                labels, predictions[cell["id"]], rows = _predictions(path)
                metric = cell["metric"]
    if not predictions:
        return {}
    stacked, rng = np.stack(list(predictions.values())), np.random.default_rng(0)
    scores = resampled_scores(metric, labels, stacked, rng, rows=rows)
    return dict(zip(predictions, scores))


def _predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Labels and predictions (rows,) that `training.finetuned.predict` wrote: class codes, or values.

    Of a tagging task they are of its words, the negative tag being -1, and the third says of which row each word is.
    """
    import pandas

    table = pandas.read_parquet(path).dropna(subset="label")
    names = [column.removeprefix("p_") for column in table if column.startswith("p_")]  # in the order of the codes
    if names:
        label, prediction = (pandas.Categorical(table[key], names).codes for key in ("label", "prediction"))
        return label, prediction, None
    if table["label"].dtype != object:
        return table["label"].to_numpy(float), table["prediction"].to_numpy(float), None
    words = table.reset_index(drop=True).explode(["label", "prediction"])
    codes = {NEGATIVE_TAG: -1} | {tag: i for i, tag in enumerate(sorted({*words["label"]} - {NEGATIVE_TAG}))}
    # A tag that no label has is wrong, whichever it is.
    label, prediction = (words[key].map(codes).fillna(len(codes)).to_numpy(int) for key in ("label", "prediction"))
    return label, prediction, words.index.to_numpy()


def _groups(cells: DataFrame) -> dict[Arm, DataFrame]:
    """The cells of each arm and budget, by seed."""
    return {_key(group.iloc[0]): group.set_index("seed") for _, _, group in arms(cells)}


def _budgets(groups: dict[Arm, DataFrame]) -> Any:
    """The type of the column."""
    return next(iter(groups.values()))["budget"].dtype


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


def _selection(cells: DataFrame, arm: str) -> str:
    return cells["selection"][cells["arm"] == arm].iloc[0]


def _named(arm: str, budget: Any) -> str:
    return f"`{arm}`" if budget is None else f"`{arm}`, budget {budget:,}"


def _points(effect: float) -> str:
    return f"{100 * effect:.1f} points"
